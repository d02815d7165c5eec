"use strict";
const data = JSON.parse(document.getElementById("data").textContent);
const [SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED] = [0, 1, 2, 3, 4, 5, 6];
const CONTEXT = 2, SHORTEST = 4;  // lines of context around a difference; lines worth a fold
const names = Object.keys(data.scripts), byId = id => document.getElementById(id);
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
function sideHtml(side, script, number, sign, marks, title = "") {
  if (number === null) return `<div class="side ${side}"></div>`;
  return `<div class="side ${side}"><a href="../${script}.py#L${number + 1}" data-sign="${sign}" tabindex="-1"${title}>` +
    `${number + 1}</a><span data-line="${number}">${lineHtml(script, number, marks)}</span></div>`;
}
function rowHtml(kind, a, b, rest) {
  const [what, sign] = [["same", ["", ""]], ["same indented", ["\u21e5", "\u21e5"]], ["changed", ["~", "~"]], ["left", ["-", ""]],
    ["right", ["", "+"]], ["left moved", ["\u2195", ""]], ["right moved", ["", "\u2195"]]][kind];
  const title = kind >= LEFT_MOVED ? ` title="on the other side at line ${rest[1] + 1}"` : "";
  return `<div class="row ${what}">${sideHtml("l", view.left, a, sign[0], rest[0], title)}` +
    `${view.right ? sideHtml("r", view.right, b, sign[1], rest[1], title) : ""}</div>`;
}
function rowsHtml(entry, whole) {
  const [i, j, , rows] = entry, lines = [];
  let a = i < 0 ? 0 : data.scripts[view.left].parts[i][2], b = j < 0 ? 0 : data.scripts[view.right].parts[j][2];
  for (const [kind, ...rest] of rows) for (let n = kind === CHANGED ? 1 : rest[0]; n; n--) {
    const onLeft = ![RIGHT, RIGHT_MOVED].includes(kind), onRight = view.right && ![LEFT, LEFT_MOVED].includes(kind);
    const offset = rest[0] - n, more = kind === CHANGED ? rest : kind >= LEFT_MOVED ? [[], rest[1] + offset] : [];
    lines.push([kind, rowHtml(kind, onLeft ? a++ : null, onRight ? b++ : null, more)]);
  }
  if (whole) return lines.map(line => line[1]).join("");
  let html = "";
  for (let start = 0, end; start < lines.length; start = end) {
    const differs = k => lines[k][0] > INDENTED, kind = lines[start][0];
    for (end = start; end < lines.length && (differs(start) ? differs(end) : lines[end][0] === kind); end++);
    const run = lines.slice(start, end).map(line => line[1]);
    const before = start ? CONTEXT : 0, after = end < lines.length ? CONTEXT : 0, hidden = run.length - before - after;
    if (differs(start)) html += `<div class="hunk" tabindex="-1">${run.join("")}</div>`;
    else if (kind === SAME && hidden >= SHORTEST) html += run.slice(0, before).join("") +
      foldHtml(plural(hidden, "identical line"), run.slice(before, run.length - after).join("")) + run.slice(run.length - after).join("");
    else html += run.join("");
  }
  return html;
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
  head = `<h3 id="part-${(p || q)[0]}">${head}</h3>`;
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
function chartHtml(env, sides) {
  const chart = data.charts[env], label = side => `<b class="${side}">${view[side === "l" ? "left" : "right"]}.py</b>`;
  const shown = sides.map(([side, script]) => [side, chart.scripts[script]]).filter(s => s[1]);
  const rows = shown.map(([side, s]) => `<tr><td>${label(side)}</td>${s.row.map(c => `<td>${c[1]}</td>`).join("")}</tr>`);
  const folders = [...new Set(shown.map(s => s[1].folder))].map(f => `<a href="../benchmark/results/${f}/report.md">${f}</a>`).join(", ");
  const title = `${env}: ${sides.map(s => s[1]).join(" and ")}`;
  return `<figure><svg class="chart" viewBox="0 0 340 190" width="340" height="190" role="img" aria-label="Learning curves, ${title}">${chart.frame}` +
    shown.map(([side, s]) => `<g class="${side}">${s.shape}</g>`).join("") + `</svg><figcaption>${env}: return by ${chart.unit}, ${chart.statistic}, ` +
    `95% band. ${shown.map(([side, s]) => `${label(side)} n = ${s.row[0][1]}`).join("; ")}. From ${folders}.</figcaption></figure>` +
    `<div class="scroller"><table class="facts"><thead><tr><th>${env}</th>${shown[0][1].row.map(c => `<th>${c[0]}</th>`).join("")}</tr></thead>` +
    `<tbody>${rows.join("")}</tbody></table></div>`;
}
function topHtml() {
  const {left, right} = view, steps = right ? path(left, right) : [left].filter(n => data.scripts[n].parent);
  const words = steps.map(name => {
    const s = data.scripts[name], items = (s.bullets[s.parent] || []).map(b => `<li>${b}</li>`).join("");
    const found = s.findings.map(([title, body]) => `<p><b>Measured: ${title}.</b> ${body}</p>`).join("");
    return `<h2>${name}.py compared with <a href="#${s.parent}..${name}">${s.parent}.py</a></h2><p>${s.buys}</p><ul>${items}</ul>${found}`;
  }).join("");
  const sides = [["l", left], ["r", right]].filter(s => s[1]), envs = Object.keys(data.charts);
  const having = script => envs.filter(env => data.charts[env].scripts[script]);
  const common = envs.filter(env => sides.every(s => data.charts[env].scripts[s[1]]));
  let charts = common.map(env => `<div>${chartHtml(env, sides)}</div>`).join("");
  if (!common.length) charts = sides.filter(s => having(s[1]).length).map(s => `<div>${chartHtml(having(s[1])[0], [s])}</div>`).join("");
  const apart = right && !common.length ? `<p>No environment was run with both.${charts ? " Each on one of its own:" : ""}</p>` : "";
  return `<div>${words || `<h2>${data.scripts[left].title}</h2>`}</div><div><h2>Measured</h2>${apart}<div class="charts">${charts}</div></div>`;
}
const HOME = `<div class="home"><h2>How to read it</h2><p>Both scripts stand in two columns, aligned by section and by function. What is identical is
  folded to a line. <b>~</b> marks lines that changed, and the words in them; <b>-</b> what only the left has, <b>+</b> what only the right has,
  <b>\u2195</b> what moved, <b>\u21e5</b> what is only indented. Beside the mathematics and each paragraph of the loop stands a note. The address names the
  pair and can be sent to someone.</p><p><kbd>n</kbd> <kbd>p</kbd> next and previous difference, <kbd>f</kbd> fold and unfold, <kbd>s</kbd> swap sides.</p>
  <p>Begin with <a href="#reinforce..reinforce_baseline">what a baseline is</a>, or choose two scripts above.</p></div>`;

// ---- The view, from the address ----
function show() {
  const [left, right] = decodeURIComponent(location.hash.slice(1)).split("/")[0].split("..");
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
  const part = byId("part-" + (decodeURIComponent(location.hash).split("/")[1] || ""));
  if (part) part.scrollIntoView();
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
  byId(side).innerHTML = `<option value="">none</option>` + names.map(name => `<option value="${name}">${name}.py</option>`).join("");
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
