"use strict";
const byId = id => document.getElementById(id), data = JSON.parse(byId("data").textContent), HOME = byId("main").innerHTML;
const [SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED] = [0, 1, 2, 3, 4, 5, 6];
const SIGNS = ["", "\u21e5", "~", "-", "+", "\u2195", "\u2195"], STYLES = ["same", "same", "changed", "only", "only", "moved", "moved"];
const CONTEXT = 2, SHORTEST = 4;  // lines of context around a difference; lines worth a fold
const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const foldHtml = (title, inner) => `<details class="fold"><summary>${title}</summary>${inner}</details>`;
let view = {}, places = new Map();  // how far each address was scrolled

// ---- Lines ----
function alignment(left, right) {  // as seen from the left; of a script alone, all its parts
  if (!right) return data.scripts[left].parts.map((p, i) => [i, -1, 0, [[SAME, p[3] - p[2]]]]);
  const mirror = [SAME, INDENTED, CHANGED, RIGHT, LEFT, RIGHT_MOVED, LEFT_MOVED];
  const swap = ([kind, ...rest]) => [mirror[kind], ...(kind === CHANGED ? rest.reverse() : rest)];
  return data.pairs[`${left}..${right}`] || data.pairs[`${right}..${left}`].map(([i, j, moved, runs]) => [j, i, moved, runs.map(swap)]);
}
function lineHtml(script, number, marks = []) {
  let html = "", end = 0;
  const tokens = data.lines[data.scripts[script].lines[number]];
  for (let i = 0; i < tokens.length; i += 2) {
    const [kind, text] = tokens.slice(i, i + 2), start = end;
    end += text.length;
    const cuts = [start, ...marks.filter(m => start < m && m < end), end];
    const pieces = cuts.slice(1).map((to, k) => {
      const piece = escape(text.slice(cuts[k] - start, to - start)), inside = marks.findIndex(m => m > cuts[k]) % 2 === 1;
      return inside ? `<mark>${piece}</mark>` : piece;
    }).join("");
    html += kind ? `<span class="${kind}">${pieces}</span>` : pieces;
  }
  return html;
}
function sideHtml(side, number, kind, marks, at) {
  const script = view[side === "l" ? "left" : "right"], title = at === undefined ? "" : ` title="on the other side: line ${at + 1}"`;
  return `<div class="side ${side} ${STYLES[kind]}"${title}><a href="../${script}.py#L${number + 1}" tabindex="-1" data-sign="${SIGNS[kind]}">` +
    `${number + 1}</a><span data-line="${number}">${lineHtml(script, number, marks)}</span></div>`;
}
function rowsOf([i, j, , runs]) {  // {kind, l, r}; what only the right has stands beside what only the left has
  const rows = [], first = (script, part) => part < 0 ? 0 : data.scripts[script].parts[part][2];
  let a = first(view.left, i), b = view.right && first(view.right, j), free = [];
  for (const [kind, ...rest] of runs) for (let n = 0; n < (kind === CHANGED ? 1 : rest[0]); n++) {
    const both = kind < LEFT, [marks, other] = kind === CHANGED ? rest : [], at = kind < LEFT_MOVED ? undefined : rest[1] + n;
    const l = both || kind % 2 ? sideHtml("l", a++, kind, marks, at) : "";
    const r = view.right && (both || kind % 2 === 0) ? sideHtml("r", b++, kind, other, at) : "";
    if (both) free = [];
    if (!l && free.length) free.shift().r = r;
    else rows.push({kind, l, r});
    if (!r) free.push(rows.at(-1));
  }
  return rows;
}
function rowsHtml(entry, whole) {
  const rows = rowsOf(entry), differs = row => row.kind > INDENTED;
  const html = (from, to) => rows.slice(from, to).map(({l, r}) =>
    `<div class="row">${l || "<div class='side l'></div>"}${view.right ? r || "<div class='side r'></div>" : ""}</div>`).join("");
  let all = whole ? html(0, rows.length) : "";
  for (let start = 0, end; start < rows.length && !whole; start = end) {
    const first = rows[start], ends = row => differs(first) ? !differs(row) : row.kind !== first.kind;
    end = rows.findIndex((row, k) => k > start && ends(row));
    if (end < 0) end = rows.length;
    const from = start + (start ? CONTEXT : 0), to = end - (end < rows.length ? CONTEXT : 0);
    if (differs(first)) all += `<div class="hunk" tabindex="-1">${html(start, end)}</div>`;
    else if (first.kind === INDENTED || to - from < SHORTEST) all += html(start, end);
    else all += html(start, from) + foldHtml(plural(to - from, "identical line"), html(from, to)) + html(to, end);
  }
  return all;
}

// ---- Parts ----
function partsOf([i, j]) {  // of an entry: left, right, side of the only one, link to it
  const [p, q] = [data.scripts[view.left].parts[i], view.right && data.scripts[view.right].parts[j]], part = q || p;
  const name = p && q && p[0] !== q[0] ? `<span class="l">${p[0]}</span> &#8644; <span class="r">${q[0]}</span>` : part[0];
  const [id, left] = [part, p || part].map(one => one[0].replace(" ", "-")), address = view.left + (view.right && ".." + view.right);
  return {p, q, part, id, left, side: p ? "l" : "r", both: p && q, link: `<a href="#${address}/${id}">${name}</a>`};
}
function partHtml(entry, whole = !view.right) {
  const [, , moved, rows] = entry, {p, q, part, id, left, side, both, link} = partsOf(entry);
  const note = (n, side) => n < 0 ? "" : `<div class="note ${side}">${data.notes[n]}</div>`;
  if (!rows.length) return `<h3>${link} <small>has moved, and stands beside its counterpart</small></h3>`;
  const only = view.right && !both ? ` <small>only in <span class="${side}">${view[p ? "left" : "right"]}.py</span></small>` : "";
  const head = part[0].toLowerCase() === part[1].toLowerCase() ? `<div id="part-${id}"></div>` :
    `<h3 id="part-${id}">${left === id ? "" : `<span id="part-${left}"></span>`}${link}${only}${both && moved ? " <small>moved</small>" : ""}</h3>`;
  if (!both) return `${head}<div class="solo ${side}"><div class="rows code">${rowsHtml(entry, whole)}</div>${note(part[4], side)}</div>`;
  const notes = p[4] === q[4] ? note(p[4], "") : note(p[4], "l") + note(q[4], "r");
  return `${head}<div class="notes">${notes}</div><div class="code">${rowsHtml(entry, whole)}</div>`;
}
function bodyHtml(entries) {
  let html = "", section = "", quiet = [];
  const flush = () => {  // what is identical, as one line; alone, a script shows all but its scaffold
    const parts = data.scripts[view.left].parts, lines = quiet.reduce((sum, entry) => sum + entry[3][0][1], 0);
    const titles = quiet.map(([i]) => parts[i]).filter(p => p[0].toLowerCase() !== p[1].toLowerCase());
    const list = titles.map(p => p[0]).join(", ") + (titles.some(p => p[4] >= 0) ? "; with notes" : "");
    if (lines) html += foldHtml(plural(lines, view.right ? "identical line" : "line") + (list && ": " + list), quiet.map(e => partHtml(e, true)).join(""));
    quiet = [];
  };
  for (const entry of entries) {
    const [i, j, moved, rows] = entry, part = j < 0 ? data.scripts[view.left].parts[i] : data.scripts[view.right].parts[j];
    const calm = view.right ? i >= 0 && j >= 0 && !moved && rows.every(r => r[0] === SAME) : part[1] === "Scaffold";
    if (part[1] !== section || !calm) flush();
    if (part[1] !== section) html += `<h2>${section = part[1]}</h2>`;
    if (calm) quiet.push(entry);
    else html += partHtml(entry);
  }
  flush();
  return html;
}

// ---- What the difference buys ----
function path(left, right) {
  const up = name => name ? [name, ...up(data.scripts[name].parent)] : [];
  const [a, b] = [up(left), up(right)], shared = a.find(name => b.includes(name));
  return [...a.slice(0, a.indexOf(shared)), ...b.slice(0, b.indexOf(shared)).reverse()];
}
function chartHtml(env, shown) {
  const chart = data.charts[env], by = /completions/.test(shown.map(([, s]) => chart.scripts[s].row)) ? "completions" : "steps";
  const links = [...new Set(shown.map(([, s]) => chart.scripts[s].folder))].map(f => `<a href="../benchmark/results/${f}/report.md">${f}</a>`).join(", ");
  return `<figure><svg class="chart" viewBox="0 0 340 190" width="340" height="190" role="img" aria-label="Learning curves: ${env}">` +
    chart.frame + shown.map(([side, s]) => `<g class="${side}">${chart.scripts[s].shape}</g>`).join("") + `</svg><figcaption>` +
    `<b>${env}</b>: return by ${by}, ${chart.statistic === "iqm" ? "IQM" : "mean"} over seeds, 95% band (${links})</figcaption></figure>`;
}
function tableHtml(drawn) {
  const tables = new Map();  // one for each heading
  for (const [env, shown] of drawn) for (const [side, s] of shown) {
    const row = data.charts[env].scripts[s].row, head = ["environment", "script", ...row.map(c => c[0])];
    const cells = [env, `<b class="${side}">${s}.py</b>`, ...row.map(c => c[1])];
    tables.set(head.join(), (tables.get(head.join()) || [head]).concat([cells]));
  }
  const line = (cells, tag) => `<tr>${cells.map(c => `<${tag}>${c}</${tag}>`).join("")}</tr>`;
  return [...tables.values()].map(([head, ...rows]) => `<div class="scroller" tabindex="0" role="region" aria-label="Results"><table class="facts">` +
    `<thead>${line(head, "th")}</thead><tbody>${rows.map(r => line(r, "td")).join("")}</tbody></table></div>`).join("");
}
function topHtml() {
  const {left, right} = view, steps = right ? path(left, right) : [left].filter(n => data.scripts[n].parent);
  const words = steps.map(name => {
    const s = data.scripts[name], items = s.bullets.map(b => `<li>${b}</li>`).join("");
    const found = s.findings.map(([title, body]) => `<p><b>${title}.</b> ${body}</p>`).join("");
    return `<div><h3>${name}.py compared with <a href="#${s.parent}..${name}">${s.parent}.py</a></h3><p>${s.buys}</p><ul>${items}</ul>${found}</div>`;
  }).join("");
  const differ = right ? alignment(left, right).filter(([, , moved, rows]) => rows.length && (moved || rows.some(r => r[0] !== SAME))) : [];
  const links = differ.map(partsOf).map(({side, both, link}) => both ? link : `${link} (<span class="${side}">${side === "l" ? "left" : "right"} only</span>)`);
  const where = links.length ? `<p id="where">They differ in ${links.join(", ")}.</p>` : "";
  const sides = [["l", left], ["r", right]].filter(s => s[1]), envs = Object.keys(data.charts);
  const having = sides => envs.filter(env => sides.every(([, s]) => data.charts[env].scripts[s])).map(env => [env, sides]);
  const context = steps.some(name => data.scripts[name].findings.length) ? `<p>${data.context}</p>` : "";
  const common = having(sides), drawn = common.length ? common : sides.flatMap(side => having([side]).slice(0, 1));
  const apart = common.length || !right ? "" : `<p>No environment was run with both${drawn.length > 1 ? "; each on one of its own" : ""}.</p>`;
  return `<h2>${sides.map(s => data.scripts[s[1]].title).join(" and ")}</h2><div class="words">${words}</div>${context}${where}` +
    `<h2>Measured</h2>${apart}<p>In brackets: 95% intervals over n seeds. Evaluation: with the policy's mode, after training.</p>` +
    `<div class="charts">${drawn.map(([env, shown]) => chartHtml(env, shown)).join("")}</div>${tableHtml(drawn)}`;
}

// ---- The view, from the address ----
function show() {
  const [pair, anchor] = location.hash.slice(1).split("/"), known = name => Object.hasOwn(data.scripts, name);
  const old = view.key, [left, other] = known(pair.split("..")[0]) ? pair.split("..") : ["", ""];
  const right = known(other) && other !== left ? other : "", key = `${left}..${right}`;
  if (old !== key) {
    view = {left, right, key, at: -1};
    [byId("left").value, byId("right").value] = [left, right];
    for (const link of document.querySelectorAll("#ladder a"))  // an edge, if both its ends are shown
      link.classList.toggle("on", link.getAttribute("href").slice(1).split("..").every(name => name === left || name === right));
    document.title = `${left ? left + (right && " and " + right) : "Policy gradients"}, side by side`;
    byId("main").innerHTML = left ? `<div id="top">${topHtml()}</div>${bodyHtml(alignment(left, right))}` : HOME;
    view.hunks = [...document.querySelectorAll(".hunk")];
    setFolds(false);
  }
  const part = byId("part-" + anchor);
  if (part && part.closest("details")) part.closest("details").open = true;
  if (part) part.scrollIntoView();
  else if (old !== undefined) scrollTo(0, places.get(location.hash) || 0);
  count();
}
function count() {
  const n = view.hunks.length, at = view.at + 1;
  byId("count").textContent = at ? `difference ${at} of ${n}` : n ? plural(n, "difference") : "";
}
function step(by) {
  const {hunks} = view, focused = hunks.indexOf(document.activeElement);
  view.at = Math.min(hunks.length - 1, Math.max(0, (focused < 0 ? view.at : focused) + by));
  hunks[view.at]?.focus({preventScroll: true});
  hunks[view.at]?.scrollIntoView({block: hunks[view.at].offsetHeight > innerHeight / 2 ? "start" : "center"});
  count();
}
function setFolds(open) {
  for (const fold of document.querySelectorAll(".fold")) fold.open = open;
  byId("fold").textContent = open ? "fold all" : "unfold all";
}
const go = (...names) => { location.hash = names.filter(Boolean).join(".."); };
const actions = {
  next: () => step(1), previous: () => step(-1), swap: () => view.right && go(view.right, view.left),
  fold: () => setFolds(byId("fold").textContent === "unfold all"),
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
for (const menu of [byId("left"), byId("right")]) menu.addEventListener("change", () => go(byId("left").value, byId("right").value));
addEventListener("keydown", event => {
  const action = {n: "next", p: "previous", f: "fold", s: "swap"}[event.key], held = event.ctrlKey || event.altKey || event.metaKey;
  if (action && byId("keys").checked && !held && !event.target.closest("select")) actions[action]();
});
addEventListener("mousedown", event => {
  const side = event.target.closest(".side");
  for (const name of ["l", "r"]) byId("main").classList.toggle("selecting-" + name, !!side && side.classList.contains(name));
});
addEventListener("scroll", () => places.set(location.hash, scrollY), {passive: true});
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
show();
