"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED] = [0, 1, 2, 3, 4, 5, 6];
const CONTEXT = 2, SHORTEST = 4;  // lines of context around a difference; lines worth a fold
const byId = id => document.getElementById(id);
const escape = text => text.replace(/[&<>"]/g, c => ({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;"}[c]));
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
let view = {}, places = new Map();

// ---- The two scripts, and their alignment as seen from the left ----
const mirror = [SAME, INDENTED, CHANGED, RIGHT, LEFT, RIGHT_MOVED, LEFT_MOVED];
function alignment(left, right) {
  if (!right) return data.scripts[left].parts.map((p, i) => [i, -1, 0, [[SAME, p[3] - p[2]]]]);
  const entries = data.pairs[`${left}..${right}`];
  if (entries) return entries;
  return data.pairs[`${right}..${left}`].map(([i, j, moved, rows]) => [j, i, moved, rows.map(
    ([kind, ...rest]) => [mirror[kind], ...(kind === CHANGED ? rest.reverse() : rest)])]);
}

// ---- Lines ----
function lineHtml(script, number, marks = []) {
  let html = "", at = 0;
  const tokens = data.lines[data.scripts[script].lines[number]];
  for (let i = 0; i < tokens.length; i += 2) {
    let [kind, text] = [tokens[i], tokens[i + 1]], inner = "";
    while (text) {
      const next = marks.findIndex(m => m > at), inside = next % 2 === 1;
      const piece = text.slice(0, next < 0 ? text.length : marks[next] - at);
      inner += inside ? `<mark>${escape(piece)}</mark>` : escape(piece);
      at += piece.length;
      text = text.slice(piece.length);
    }
    html += kind ? `<span class="${kind}">${inner}</span>` : inner;
  }
  return html;
}
const SIGNS = ["", "\u21e5", "~", "-", "+", "\u2195", "\u2195"];
const STYLES = ["same", "same", "changed", "only", "only", "moved", "moved"];
function sideHtml(side, number, kind, marks, at) {
  const script = view[side === "l" ? "left" : "right"], title = at === undefined ? "" : ` title="on the other side: line ${at + 1}"`;
  return `<div class="side ${side} ${view.right ? STYLES[kind] : "same"}"${title}><a href="../${script}.py#L${number + 1}" tabindex="-1" ` +
    `data-sign="${view.right ? SIGNS[kind] : ""}">${number + 1}</a><span data-line="${number}">${lineHtml(script, number, marks)}</span></div>`;
}
// One {kind, l, r} a row; what only the right has stands beside what only the left has.
function rowsOf([i, j, , runs]) {
  const rows = [], first = (script, part) => part < 0 ? 0 : data.scripts[script].parts[part][2];
  let a = first(view.left, i), b = view.right && first(view.right, j), free = [];
  for (const [kind, ...rest] of runs) for (let n = 0; n < (kind === CHANGED ? 1 : rest[0]); n++) {
    const [onLeft, onRight] = [kind < LEFT || kind % 2, view.right && (kind < LEFT || kind % 2 === 0)];
    const marks = kind === CHANGED ? rest : [], at = kind < LEFT_MOVED ? undefined : rest[1] + n;
    const row = {kind, l: onLeft ? sideHtml("l", a++, kind, marks[0], at) : "", r: onRight ? sideHtml("r", b++, kind, marks[1], at) : ""};
    if (onLeft && onRight) free = [];
    if (!onLeft && free.length) free.shift().r = row.r;
    else rows.push(row);
    if (onLeft && !onRight) free.push(row);
  }
  return rows;
}
function rowsHtml(entry, whole) {
  const rows = rowsOf(entry), differs = k => rows[k].kind > INDENTED;
  const html = (from, to) => rows.slice(from, to).map(({l, r}) =>
    `<div class="row">${l || "<div class='side l'></div>"}${view.right ? r || "<div class='side r'></div>" : ""}</div>`).join("");
  if (whole) return html(0, rows.length);
  let all = "";
  for (let start = 0, end; start < rows.length; start = end) {
    for (end = start; end < rows.length && (differs(start) ? differs(end) : rows[end].kind === rows[start].kind); end++);
    const from = start + (start ? CONTEXT : 0), to = end - (end < rows.length ? CONTEXT : 0);
    if (differs(start)) all += `<div class="hunk" tabindex="-1">${html(start, end)}</div>`;
    else if (rows[start].kind === SAME && to - from >= SHORTEST)
      all += html(start, from) + foldHtml(plural(to - from, "identical line"), html(from, to)) + html(to, end);
    else all += html(start, end);
  }
  return all;
}
const foldHtml = (title, inner) => `<details class="fold"><summary>${title}</summary>${inner}</details>`;

// ---- Parts ----
function partHtml(entry) {
  const [i, j, moved, rows] = entry, [p, q] = [data.scripts[view.left].parts[i], view.right && data.scripts[view.right].parts[j]];
  const ids = [p ? p[4] : -1, q ? q[4] : -1], name = (q || p)[0], one = !(p && q), same = rows.every(r => r[0] === SAME);
  const note = (n, side) => n < 0 ? "" : `<div class="note ${side}">${data.notes[n]}</div>`;
  let head = p && q && p[0] !== q[0] ? `<span class="l">${p[0]}</span> &#8644; <span class="r">${q[0]}</span>` : name;
  if (!rows.length) return `<h3>${head} <small>moved: it stands beside its counterpart, elsewhere on this page</small></h3>`;
  if (view.right && one) head += ` <small>only in <span class="${p ? "l" : "r"}">${p ? view.left : view.right}.py</span></small>`;
  if (view.right && moved && !one) head += " <small>moved</small>";
  head = `<h3 id="part-${(p || q)[0].replace(" ", "-")}">${head}</h3>`;
  if (one) {
    const inner = rowsHtml(entry, !view.right), side = p ? "l" : "r", n = Math.max(...ids);
    return `${head}<div class="solo ${side}"><div class="rows code">${inner}</div>${note(n, side)}</div>`;
  }
  let notes = ids[0] === ids[1] ? note(ids[0], "") : note(ids[0], "l") + note(ids[1], "r");
  if (notes) notes = `<div class="notes">${notes}</div>`;
  if (same && notes) notes = foldHtml("note", notes);
  return `${head}${notes}<div class="code">${rowsHtml(entry, false)}</div>`;
}
function bodyHtml(entries) {
  let html = "", section = "", quiet = [];
  const flush = () => {
    if (!quiet.length) return;
    const lines = quiet.reduce((sum, [, , , rows]) => sum + rows[0][1], 0), parts = data.scripts[view.left].parts;
    const titles = quiet.map(e => parts[e[0]][0]).filter(name => name !== section);
    const what = view.right ? plural(lines, "identical line") : plural(lines, "line");
    html += foldHtml(`${what}${titles.length ? ": " + titles.join(", ") : ""}`, `<div class="code">${quiet.map(e => rowsHtml(e, true)).join("")}</div>`);
    quiet = [];
  };
  for (const entry of entries) {
    const [i, j, moved, rows] = entry, left = data.scripts[view.left].parts[i];
    const part = j < 0 ? left : data.scripts[view.right].parts[j];
    if (part[1] !== section) {
      flush();
      section = part[1];
      html += `<h2>${section}</h2>`;
    }
    const note = Math.max(left ? left[4] : -1, part[4]);
    const calm = !moved && left && rows.every(r => r[0] === SAME) && (view.right ? j >= 0 && note < 0 : section === "Scaffold");
    if (calm) quiet.push(entry);
    else {
      flush();
      html += partHtml(entry);
    }
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
  const chart = data.charts[env], folders = [...new Set(shown.map(([, s]) => chart.scripts[s].folder))];
  const links = folders.map(f => `<a href="../benchmark/results/${f}/report.md">${f}</a>`).join(", ");
  return `<figure><svg class="chart" viewBox="0 0 340 190" width="340" height="190" role="img" aria-label="Learning curves: ${env}">` +
    chart.frame + shown.map(([side, s]) => `<g class="${side}">${chart.scripts[s].shape}</g>`).join("") + `</svg><figcaption>` +
    `<b>${env}</b>: return by ${chart.unit}, ${chart.statistic} over seeds, 95% band (${links})</figcaption></figure>`;
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
    const s = data.scripts[name], items = (s.bullets[s.parent] || []).map(b => `<li>${b}</li>`).join("");
    const found = s.findings.map(([title, body]) => `<p><b>Measured: ${title}.</b> ${body}</p>`).join("");
    return `<div><h2>${name}.py compared with <a href="#${s.parent}..${name}">${s.parent}.py</a></h2><p>${s.buys}</p><ul>${items}</ul>${found}</div>`;
  }).join("");
  const sides = [["l", left], ["r", right]].filter(s => s[1]), envs = Object.keys(data.charts);
  const having = sides => envs.filter(env => sides.every(([, s]) => data.charts[env].scripts[s])).map(env => [env, sides]);
  const common = having(sides), drawn = common.length ? common : sides.flatMap(side => having([side]).slice(0, 1));
  const apart = common.length || !right ? "" : `<p>No environment was run with both${drawn.length ? "; each on one of its own" : ""}.</p>`;
  return `<div class="words">${words || `<h2>${data.scripts[left].title}</h2>`}</div>` + (drawn.length || apart ? `<h2>Measured</h2>${apart}` : "") +
    `<div class="charts">${drawn.map(([env, shown]) => chartHtml(env, shown)).join("")}</div>${tableHtml(drawn)}`;
}
const HOME = `<div class="home"><h2>How to read it</h2><p>Both scripts stand in two columns, aligned by section and by function. What is identical is
  folded to a line. <b>~</b> marks lines that changed, and the words in them; <b>-</b> what only the left has, <b>+</b> what only the right has,
  <b>\u2195</b> what moved, <b>\u21e5</b> what is only indented. Beside the mathematics and each paragraph of the loop stands a note. The address names the
  pair and can be sent to someone.</p><p><kbd>n</kbd> <kbd>p</kbd> next and previous difference, <kbd>f</kbd> fold and unfold, <kbd>s</kbd> swap sides.</p>
  <p>Begin with <a href="#reinforce..reinforce_baseline">what a baseline is</a>, or choose two scripts above.</p></div>`;

// ---- The view, from the address ----
function show() {
  const [pair, anchor] = location.hash.slice(1).split("/"), [left, right] = pair.split("..");
  const old = view.key, known = name => data.scripts[name];
  view = known(left) ? {left, right: known(right) && right !== left ? right : ""} : {left: "", right: ""};
  view.key = view.left + ".." + view.right;
  byId("left").value = view.left;
  byId("right").value = view.right;
  for (const node of document.querySelectorAll("#ladder a")) {
    const {node: name, edge} = node.dataset, pair = edge && edge.split("..");
    node.classList.toggle("on", name ? [view.left, view.right].includes(name) : pair.includes(view.left) && pair.includes(view.right));
  }
  if (old !== view.key) {
    document.title = (view.left ? view.left + (view.right && " and " + view.right) + ", " : "Policy gradients, ") + "side by side";
    byId("main").innerHTML = view.left ? `<div id="top">${topHtml()}</div>${bodyHtml(alignment(view.left, view.right))}` : HOME;
    view.hunks = [...document.querySelectorAll(".hunk")];
    view.at = -1;
    setFolds(false);
    if (old !== undefined) scrollTo(0, places.get(location.hash) || 0);
  }
  if (byId("part-" + anchor)) byId("part-" + anchor).scrollIntoView();
  count();
}
function count() {
  const n = view.hunks.length;
  byId("count").textContent = !n ? "" : view.at < 0 ? plural(n, "difference") : `difference ${view.at + 1} of ${n}`;
}
function step(by) {
  if (!view.hunks.length) return;
  const focused = view.hunks.indexOf(document.activeElement);
  view.at = Math.min(view.hunks.length - 1, Math.max(0, (focused < 0 ? view.at : focused) + by));
  view.hunks[view.at].focus({preventScroll: true});
  view.hunks[view.at].scrollIntoView({block: view.hunks[view.at].offsetHeight > innerHeight / 2 ? "start" : "center"});
  count();
}
function setFolds(open) {
  for (const fold of document.querySelectorAll(".fold")) fold.open = open;
  byId("fold").textContent = open ? "fold all" : "unfold all";
}
function go(left, right) {
  places.set(location.hash, scrollY);
  location.hash = left ? left + (right ? ".." + right : "") : "";
}
const actions = {
  next: () => step(1), previous: () => step(-1),
  fold: () => setFolds(byId("fold").textContent === "unfold all"),
  swap: () => view.right && go(view.right, view.left),
};
const keys = {n: "next", p: "previous", f: "fold", s: "swap"};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
for (const side of ["left", "right"]) {
  byId(side).addEventListener("change", () => go(byId("left").value || byId("right").value, byId("left").value && byId("right").value));
}
addEventListener("keydown", event => {
  if (!byId("keys").checked || event.ctrlKey || event.altKey || event.metaKey || event.target.closest("select")) return;
  if (keys[event.key]) actions[keys[event.key]]();
});
addEventListener("mousedown", event => {
  const side = event.target.closest(".side");
  for (const name of ["l", "r"]) byId("main").classList.toggle("selecting-" + name, !!side && side.classList.contains(name));
});
document.addEventListener("click", event => event.target.closest("a[href^='#']") && places.set(location.hash, scrollY), true);
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
show();
