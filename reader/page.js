"use strict";
const byId = id => document.getElementById(id), data = JSON.parse(byId("data").textContent), HOME = [...byId("main").childNodes];
const [SAME, INDENTED, CHANGED, LEFT, RIGHT, LEFT_MOVED, RIGHT_MOVED, QUIET] = [0, 1, 2, 3, 4, 5, 6, 7], SIGNS = ["", "\u21e5", "~", "-", "+", "\u2195", "\u2195", ""];
const STYLES = ["same", "same", "changed", "only", "only", "moved", "moved", "quiet"], CONTEXT = 2, SHORTEST = 4;  // lines of context around a difference; lines worth a fold
const LINES = {l: "one", r: "two dash"};  // of the curves
const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`), plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const foldHtml = (title, inner) => `<details class="fold"><summary>${title}</summary>${inner}</details>`;
const address = () => "#" + [view.left, view.right].filter(Boolean).join("..");
let view = {}, places = new Map(), kept = null;  // how far each address was scrolled; the place to keep when sides swap

// ---- Lines ----
function alignment(left, right) {  // as seen from the left; of a script alone, all its parts
  if (!right) return data.scripts[left].parts.map((p, i) => [i, -1, 0, [[SAME, p[3] - p[2]]]]);
  const mirror = [SAME, INDENTED, CHANGED, RIGHT, LEFT, RIGHT_MOVED, LEFT_MOVED];
  const swap = ([kind, ...rest]) => [mirror[kind], ...(kind === CHANGED ? rest.reverse() : rest)];
  return data.pairs[`${left}..${right}`] || data.pairs[`${right}..${left}`].map(([i, j, moved, runs]) => [j, i, moved, runs.map(swap)]);
}
const tokensOf = (script, number) => data.lines[data.scripts[script].lines[number]];
const isDocstring = (script, number) => /^s?d/.test(tokensOf(script, number).filter((_, i, all) => i % 2 === 0 && all[i + 1].trim()).join(""));
function inCode(script, number, marks) {  // those of the marks that do not lie in a docstring or a comment
  const tokens = tokensOf(script, number), stop = tokens.findIndex((kind, i) => i % 2 === 0 && /^[dc]$/.test(kind));
  const text = tokens.slice(0, stop < 0 ? tokens.length : stop).filter((_, i) => i % 2).join(""), end = text.trimEnd().length;
  return marks.filter((_, i) => marks[i - i % 2] < end);
}
function lineHtml(script, number, marks = [], names = null) {
  const tokens = tokensOf(script, number);
  let html = "", end = 0;
  for (let i = 0; i < tokens.length; i += 2) {
    const [kind, text] = tokens.slice(i, i + 2), start = end, cuts = [start, ...marks.filter(m => start < m && m < start + text.length), end += text.length];
    const pieces = cuts.slice(1).map((to, k) => {
      let piece = escape(text.slice(cuts[k] - start, to - start));
      if (names && !/[dc]/.test(kind)) piece = piece.replace(names, '<b class="v" data-v="$&" tabindex="-1">$&</b>');
      return marks.findIndex(m => m > cuts[k]) % 2 === 1 ? `<mark>${piece}</mark>` : piece;
    }).join("");
    html += kind ? `<span class="${kind}">${pieces}</span>` : pieces;
  }
  return html;
}
function sideHtml(side, number, kind, marks, at, names) {
  const script = view[side === "l" ? "left" : "right"], title = at === undefined ? "" : ` title="on the other side: line ${at + 1}"`;
  const sign = tokensOf(script, number).length ? SIGNS[kind] : "";
  return `<div class="side ${side} ${STYLES[kind]}"${title}><a href="../${script}.py#L${number + 1}" tabindex="-1" data-sign="${sign}">` +
    `${number + 1}</a><span data-line="${number}">${lineHtml(script, number, marks, names)}</span></div>`;
}
function rowsOf([i, j, , runs], names) {  // {kind, l, r}; what only the right has stands beside what only the left has
  const rows = [], first = (script, part) => part < 0 ? 0 : data.scripts[script].parts[part][2], codeOnly = byId("only").checked;
  let a = first(view.left, i), b = view.right && first(view.right, j), free = [];
  for (const [kind, ...rest] of runs) for (let n = 0; n < (kind === CHANGED ? 1 : rest[0]); n++) {
    const both = kind < LEFT, onLeft = both || kind % 2, onRight = view.right && (both || !onLeft), at = kind < LEFT_MOVED ? undefined : rest[1] + n;
    let [marks, other] = kind === CHANGED ? rest : [[0, 1], [0, 1]], shown = kind;
    if (codeOnly) [marks, other] = [onLeft ? inCode(view.left, a, marks) : [], onRight ? inCode(view.right, b, other) : []];
    if (codeOnly && kind > INDENTED && !marks.length && !other.length) shown = QUIET;
    if (kind !== CHANGED) marks = other = [];
    if (both || (onRight && isDocstring(view.right, b))) free = [];  // a docstring does not stand beside another
    const l = onLeft ? sideHtml("l", a++, shown, marks, at, names) : "", r = onRight ? sideHtml("r", b++, shown, other, at, names) : "";
    if (!l && free.length) Object.assign(free.shift(), {r});
    else rows.push({kind: shown, l, r});
    if (!r) free.push(rows.at(-1));
  }
  return rows;
}
function rowsHtml(entry, whole, names) {
  const rows = rowsOf(entry, names), group = ({kind}) => kind === SAME || kind === QUIET ? 0 : kind === INDENTED ? 1 : 2;
  const html = (from, to) => rows.slice(from, to).map(({l, r}) =>
    `<div class="row">${l || "<div class='side l'></div>"}${view.right ? r || "<div class='side r'></div>" : ""}</div>`).join("");
  let all = whole ? html(0, rows.length) : "";
  for (let start = 0, end; start < rows.length && !whole; start = end) {
    end = start + [...rows.slice(start), null].findIndex(row => !row || group(row) !== group(rows[start]));
    const from = start + (start ? CONTEXT : 0), to = end - (end < rows.length ? CONTEXT : 0);
    const title = plural(to - from, rows.slice(from, to).some(row => row.kind) ? "line without a difference in code" : "identical line");
    if (group(rows[start]) === 2) all += `<div class="hunk" tabindex="-1">${html(start, end)}</div>`;
    else if (group(rows[start]) === 1 || to - from < SHORTEST) all += html(start, end);
    else all += html(start, from) + foldHtml(title, html(from, to)) + html(to, end);
  }
  return all;
}

// ---- Parts ----
function partsOf([i, j]) {  // of an entry: left, right, side of the only one, link to it
  const [p, q] = [data.scripts[view.left].parts[i], view.right && data.scripts[view.right].parts[j]], part = q || p;
  const name = p && q && p[0] !== q[0] ? `<span class="l">${p[0]}</span> &#8644; <span class="r">${q[0]}</span>` : part[0];
  const [id, left] = [part, p || part].map(one => one[0].replace(" ", "-"));
  return {p, q, part, id, left, side: p ? "l" : "r", both: p && q, link: `<a href="${address()}/${id}">${name}</a>`};
}
function partHtml(entry, whole = !view.right) {
  const [, , moved, rows] = entry, {p, q, part, id, left, side, both, link} = partsOf(entry);
  if (!rows.length) return `<h3>${link} <small>has moved, and stands beside its counterpart</small></h3>`;
  const note = (n, side, of) => n < 0 ? "" : `<div class="note ${side}" data-of="${of}">${data.notes[n]}</div>`;
  const variables = [p, q].flatMap(x => x && x[4] >= 0 ? data.variables[x[4]] : []), places = [[view.left, p], [view.right, q]];
  const names = variables.length ? new RegExp(`(?<!(?<!self|args)\\.)\\b(?:${variables.join("|")})\\b`, "g") : null;
  const figures = Object.keys(play).filter(name => play[name].at?.some(at => places.some(([script, x]) => x && at === `${script}.${x[0]}`)));
  const only = view.right && !both ? ` <small>only in <span class="${side}">${view[p ? "left" : "right"]}.py</span></small>` : "";
  const head = part[0].toLowerCase() === part[1].toLowerCase() ? `<div id="part-${id}"></div>` :
    `<h3 id="part-${id}">${left === id ? "" : `<span id="part-${left}"></span>`}${link}${only}${both && moved ? " <small>moved</small>" : ""}</h3>`;
  const notes = both && p[4] === q[4] ? note(p[4], "", "both") : (p ? note(p[4], "l", view.left + ".py") : "") + (q ? note(q[4], "r", view.right + ".py") : "");
  return `${head}<div class="entry ${view.right ? both ? "" : "solo " + side : "alone"}">${notes && `<div class="notes">${notes}</div>`}` +
    `<div class="rows code">${rowsHtml(entry, whole, names)}</div></div>` + figures.map(f => `<figure class="play" data-play="${f}"></figure>`).join("");
}
function bodyHtml(entries) {
  const sections = new Map(), partOf = ([i, j]) => j < 0 ? data.scripts[view.left].parts[i] : data.scripts[view.right].parts[j];
  for (const entry of entries) sections.set(partOf(entry)[1], [...(sections.get(partOf(entry)[1]) || []), entry]);
  return [...sections].map(([section, entries]) => {
    let html = "", quiet = [];
    for (const entry of [...entries, null]) {  // what is identical, as one line
      if (entry && view.right && entry[0] >= 0 && entry[1] >= 0 && !entry[2] && entry[3].every(r => r[0] === SAME)) quiet.push(entry);
      else {
        const lines = quiet.reduce((sum, one) => sum + one[3][0][1], 0), parts = quiet.map(([i]) => data.scripts[view.left].parts[i]);
        const titles = parts.filter(p => p[0].toLowerCase() !== p[1].toLowerCase()), list = titles.map(p => p[0]).join(", ");
        const title = plural(lines, "identical line") + (list && ": " + list) + (titles.some(p => p[4] >= 0) ? "; with notes" : "");
        html += (lines ? foldHtml(title, quiet.map(one => partHtml(one, true)).join("")) : "") + (entry ? partHtml(entry) : "");
        quiet = [];
      }
    }
    const n = html.split('class="hunk"').length - 1, plumbing = section === "Scaffold" || (view.right && section === "Header");
    return `<h2>${section}</h2>` + (plumbing ? foldHtml({Header: "docstring and imports", Scaffold: "environments, checkpoints, checks of flags"}[section] +
      (view.right ? ": " + plural(n, "difference") : ""), html) : html);
  }).join("");
}

// ---- What changes ----
function path(left, right) {  // the scripts from the left one up to the common ancestor, and from there down to the right one
  const up = name => name ? [name, ...up(data.scripts[name].parent)] : [], [a, b] = [up(left), up(right)];
  const shared = a.find(name => b.includes(name));
  return {ups: a.slice(0, a.indexOf(shared)), shared, downs: b.slice(0, b.indexOf(shared)).reverse()};
}
const sideOf = name => name === view.left ? "l" : name === view.right ? "r" : "";
function pathHtml() {  // names, and between them arrows that open the step; they point from parent to child
  const {ups, shared, downs} = path(view.left, view.right || view.left), name = n => `<a class="${sideOf(n)}" href="#${n}">${n}</a>`;
  const edge = (n, arrow) => `<a class="edge" href="#${data.scripts[n].parent}..${n}" aria-label="${data.scripts[n].parent} beside ${n}">${arrow}</a>`;
  return ups.map(n => name(n) + edge(n, "\u2190")).join("") + name(shared) + downs.map(n => edge(n, "\u2192") + name(n)).join("");
}
function changeHtml() {
  const {left, right} = view, {ups, downs} = path(left, right || left), steps = right ? [...ups, ...downs] : [left];
  const own = data.changes[`${left}..${right}`] || data.changes[`${right}..${left}`];
  const list = names => names.map(n => `<p><b class="${sideOf(n)}">${n}.py</b> ${data.scripts[n].change}</p>`).join("");
  if (own || steps.length === 1) return `<div class="change"><p>${own || data.scripts[steps[0]].change}</p></div>`;
  return `<div class="change steps ${steps.length > 4 ? "many" : ups.length && downs.length ? "two" : ""}"><div>${list(ups)}</div><div>${list(downs)}</div></div>`;
}
function lossHtml(side, name, other) {
  const bare = math => math.replace(/<mspace[^>]*>|(min|max)size="[^"]*"|<mrow *(\/>|><\/mrow>)/g, "");  // without spaces and sizes of brackets
  const {part, terms, given} = data.scripts[name].loss, groups = [];
  const theirs = other ? data.scripts[other].loss : {terms: [], given: []}, twins = new Map([...theirs.given, ...theirs.terms].map(([title, math]) => [title, bare(math)]));
  const style = ([title, math]) => !other || !title || twins.get(title) === bare(math) ? "" : `${side} ${twins.has(title) ? "changed" : "only"}`;
  for (const [title, math] of terms) {  // what has no name stays with what is before it
    const html = `<span class="term ${style([title, math])}">${math}${title && `<small>${title}</small>`}</span>`;
    groups.push((title ? "" : groups.pop() || "") + html);
  }
  const same = other && !terms.some(style) && terms.length === theirs.terms.length ? " <small>is the same; what enters it differs</small>" : "";
  const others = given.filter(one => !other || style(one)).map(([title, math]) => `<div class="given ${style([title, math])}"><small>${title}</small> ${math}</div>`);
  return `<div class="loss ${side}"><h3><a class="${side}" href="${address()}/${part}">${name}.${part}</a>${same}</h3>` +
    `<div>${groups.map(html => `<span class="terms">${html}</span>`).join("")}</div><div>${others.join(" ")}</div></div>`;
}
function flowHtml() {  // three stages; a box of both scripts across the middle, what differs left and right of it
  const {left, right} = view, stages = {rollout: ["ROLLOUT"], advantage: data.groups[2], update: ["UPDATE"]};
  const html = (boxes, side) => boxes.map(([text, part]) => `<a class="${side}" href="${address()}/${part}">${escape(text)}</a>`).join("");
  const boxes = (name, stage) => {
    const own = data.scripts[name].parts.find(part => stages[stage].includes(part[0]))?.[0].replace(" ", "-") || "";
    return (data.scripts[name].flow[stage] || [stage]).map(box => [].concat(box, own));
  };
  const drawn = Object.keys(stages).map(stage => {
    const a = boxes(left, stage), b = right ? boxes(right, stage) : [];
    let all = `<b>${stage}</b>`;
    while (a.length || b.length) {
      const at = a.findIndex(x => !right || b.some(y => y[0] === x[0])), twin = at < 0 ? b.length : b.findIndex(y => y[0] === a[at][0]);
      const [l, r] = [a.splice(0, at < 0 ? a.length : at), b.splice(0, Math.max(0, twin))];
      if (l.length || r.length) all += `<div class="split"><div class="l">${html(l, "l")}</div><div class="r">${html(r, "r")}</div></div>`;
      all += html(a.splice(0, at < 0 ? 0 : 1), "");
      if (at >= 0) b.shift();
    }
    return `<div class="stage">${all}</div>`;
  });
  return `<div class="flow" role="group" aria-label="The flow of the data">${drawn.join("")}<i></i></div>`;
}
function flagsHtml(env, shown) {  // what the runs set otherwise: flags that both have with other values, or that are not a script's default
  const runs = shown.map(([side, s]) => [side, data.charts[env].scripts[s].flags]), names = new Set(runs.flatMap(([, flags]) => Object.keys(flags)));
  const items = [...names].filter(name => name !== "env_id").map(name => {
    const values = runs.filter(([, flags]) => flags[name]).map(([side, flags]) => [side, ...flags[name]]);
    const differ = values.length === 2 ? String(values[0][1]) !== String(values[1][1]) : values.some(([, , usual]) => !usual);
    return differ && `<code>--${name.replaceAll("_", "-")}</code>&nbsp;${values.map(([side, v]) => `<b class="${side}">${v}</b>`).join("&nbsp;/&nbsp;")}`;
  }).filter(Boolean);
  const title = runs.length === 2 ? "Flags that differ" : "Flags that are not the default";
  return items.length ? `${title}: ${items.join(", ")}` : "";
}
function chartHtml(env, shown) {
  const chart = data.charts[env], runs = shown.map(([, s]) => chart.scripts[s]);
  const rows = runs.map(run => run.row), points = runs.flatMap(run => run.curve);
  const values = points.flatMap(point => point.slice(1));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const by = /completions/.test(rows) ? "completions" : "steps";
  const panel = kit.panel({title: env, x: [0, Math.max(...points.map(point => point[0]))],
    y: [low, high + 0.02 * (high - low)], label: `thousands of ${by}`});
  const drawn = panel.draw(runs.map(({curve}, n) => [
    panel.area(curve.map(([x, , low, high]) => [x, low, high]), LINES[shown[n][0]]),
    panel.line(curve, LINES[shown[n][0]])]));
  const links = [...new Set(runs.map(run => run.folder))].map(folder =>
    `<a href="../benchmark/results/${folder}/report.md">${folder}</a>`);
  const legend = shown.map(([side, s]) => `<span class="${side}">${s}.py <svg class="key" ` +
    'width="30" height="8" aria-hidden="true"><g class="play">' +
    `<path class="line ${LINES[side]}" d="M0 4H30"/></g></svg></span>`);
  const flat = shown.flatMap(([, s], n) => rows[n].filter(([, value]) =>
    /saturated/.test(value)).map(([title]) => `${title} of ${s}.py`));
  const notes = [flagsHtml(env, shown), ...shown.map(([, s]) => data.scripts[s].curve),
    flat.length ? `Saturated, all seeds alike, so the interval says nothing of the spread: ${
      flat.join(", ")}.` : ""];
  return `<figure class="curves"><svg class="chart" viewBox="0 0 400 230" role="img" ` +
    `aria-label="Learning curves: ${env}"><g class="play">${drawn.svg}</g></svg><figcaption>` +
    `<p class="legend">${legend.join(" ")}</p><p>Return by ${by}, ` +
    `${chart.statistic === "iqm" ? "IQM" : "mean"} over n = ` +
    `${[...new Set(rows.map(row => row[0][1]))].join(" and ")} seeds, 95% band ` +
    `(${links.join(", ")}).</p>${notes.map(note => note && `<p>${note}</p>`).join("")}` +
    "</figcaption></figure>";
}
function tableHtml(drawn) {
  const tables = new Map();  // one for each heading
  for (const [env, shown] of drawn) for (const [side, s] of shown) {
    const row = data.charts[env].scripts[s].row, head = ["environment", "script", ...row.map(c => c[0])];
    const cells = [env, `<b class="${side}">${s}.py</b>`, ...row.map(c => c[1])];
    tables.set(head.join(), (tables.get(head.join()) || [head]).concat([cells]));
  }
  const line = (cells, tag) => `<tr>${cells.map(c => `<${tag}>${c}</${tag}>`).join("")}</tr>`;
  return [...tables.values()].map(([head, ...rows]) => `<section class="scroller" tabindex="0" aria-label="Results: ${head.slice(2).join(", ")}">` +
    `<table class="facts"><thead>${line(head, "th")}</thead><tbody>${rows.map(r => line(r, "td")).join("")}</tbody></table></section>`).join("");
}
function topHtml() {
  const {left, right} = view, {ups, downs} = path(left, right || left), steps = right ? [...ups, ...downs] : [left].filter(n => data.scripts[n].parent);
  const words = steps.map(name => [name, data.scripts[name]]).map(([name, {parent, buys, bullets, findings}]) =>
    `<div><h3>${name}.py compared with <a href="#${parent}..${name}">${parent}.py</a></h3><p>${buys}</p><ul>${bullets.map(b => `<li>${b}</li>`).join("")}</ul>` +
    `${findings.map(([title, body]) => `<p><b>${title}.</b> ${body}</p>`).join("")}</div>`).join("");
  const differ = right ? alignment(left, right).filter(([, , moved, rows]) => rows.length && (moved || rows.some(r => r[0] !== SAME))) : [];
  const links = differ.map(partsOf).map(({side, both, link}) => both ? link : `${link} (<span class="${side}">${side === "l" ? "left" : "right"} only</span>)`);
  const where = links.length ? `<p id="where">The code differs in ${links.join(", ")}.</p>` : "";
  const sides = [["l", left], ["r", right]].filter(s => s[1]), envs = Object.keys(data.charts);
  const having = sides => envs.filter(env => sides.every(([, s]) => data.charts[env].scripts[s])).map(env => [env, sides]);
  const context = steps.some(name => data.scripts[name].findings.length) ? `<p>${data.context}</p>` : "";
  const common = having(sides), drawn = common.length ? common : sides.flatMap(side => having([side]).slice(0, 1));
  const apart = common.length || !right ? "" : `<p>No environment was run with both${drawn.length > 1 ? "; each on one of its own" : ""}.</p>`;
  const losses = lossHtml("l", left, right) + (right ? lossHtml("r", right, left) : "");
  return `<h2>${sides.map(s => `<a class="${right ? s[0] : ""}" href="#/${s[1]}" title="its section in the essay">${data.scripts[s[1]].title}</a>`).join(" and ")}</h2>${changeHtml()}` +
    `<div class="losses">${losses}</div>${flowHtml()}<h2>Measured</h2>${apart}<div class="charts">${drawn.map(([env, shown]) => chartHtml(env, shown)).join("")}</div>` +
    `${tableHtml(drawn)}<p>In brackets: 95% intervals over n seeds. Evaluation: with the policy's mode, after training.</p>` +
    `${words && `<h2>In words</h2><div class="words">${words}</div>${context}`}${where}`;
}

// ---- The view, from the address ----
function show() {
  const [pair, anchor] = location.hash.slice(1).split("/"), known = name => Object.hasOwn(data.scripts, name);
  const old = view.key, [left, other] = known(pair.split("..")[0]) ? pair.split("..") : ["", ""];
  const right = known(other) && other !== left ? other : "", key = `${left}..${right}`;
  if (old !== key) {
    view = {left, right, key};
    [byId("left").value, byId("right").value] = [left, right];
    for (const link of document.querySelectorAll("#ladder a"))  // an edge, if both its ends are shown
      link.classList.toggle("on", link.getAttribute("href").slice(1).split("..").every(name => name === left || name === right));
    document.title = `${left ? left + (right && " and " + right) : "Policy gradients"}, side by side`;
    document.documentElement.className = left ? "pair" : "";
    byId("family").ariaExpanded = "false";
    byId("path").innerHTML = left ? pathHtml() : "";
    render();
  }
  const part = byId("part-" + anchor);
  for (let fold = part?.closest("details"); fold; fold = fold.parentElement.closest("details")) fold.open = true;
  part?.closest(".home")?.classList.add("whole");  // laid out, so that it stays where it is found
  if (kept) kept();
  else if (part) part.scrollIntoView();
  else if (old !== undefined) scrollTo(0, places.get(location.hash) || 0);
  kept = null;
  count();
}
function render() {
  if (view.left) byId("main").innerHTML = `<div id="top">${topHtml()}</div>${bodyHtml(alignment(view.left, view.right))}`;
  else if (byId("top")) byId("main").replaceChildren(...HOME);
  view.hunks = [...document.querySelectorAll(".hunk")];
  setFolds(false);
  for (const figure of document.querySelectorAll(".play:not([data-drawn])")) if (play[figure.dataset.play]) seen.observe(figure);
  for (const formula of document.querySelectorAll(".eq, .loss")) sizes.observe(formula);
  const [, owner] = location.hostname.match(/^(.+)\.github\.io$/) || [], home = `https://github.com/${owner}/${location.pathname.split("/")[1]}/blob/HEAD/`;
  if (owner) for (const link of document.querySelectorAll('main a[href^="../"]')) link.href = home + link.getAttribute("href").slice(3);
}
function drawFigure(figure) {
  const {title, caption} = play[figure.dataset.play], drawing = document.createElement("div");
  figure.innerHTML = `<h3>${title}</h3><figcaption>${caption}</figcaption>`;
  figure.firstChild.after(drawing);
  seen.unobserve(figure);
  figure.dataset.drawn = "";
  play[figure.dataset.play].draw(drawing);
}
const seen = new IntersectionObserver(all => all.forEach(one => one.isIntersecting && drawFigure(one.target)), {rootMargin: "400px"});
const sizes = new ResizeObserver(all => {  // the keyboard scrolls formulas that are too wide
  for (const {target} of all) if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
});
const shown = element => !element.closest("details:not([open])"), edge = () => byId("bar").getBoundingClientRect().bottom;
function count() {
  const hunks = view.hunks.filter(shown), at = hunks.indexOf(document.activeElement) + 1;
  byId("count").textContent = at ? `difference ${at} of ${hunks.length}` : hunks.length ? plural(hunks.length, "difference") : "";
}
function move(elements, by) {  // to the next or previous of them, from the one that has the focus and is seen, or from the top of the screen
  const top = e => e.getBoundingClientRect().top, now = elements.indexOf(document.activeElement.closest?.(".hunk, .v"));
  const here = now >= 0 && top(elements[now]) < innerHeight && elements[now].getBoundingClientRect().bottom > edge();
  const first = elements.findIndex(e => top(e) > edge() - 1), from = first < 0 ? elements.length : first;
  const at = here ? now + by : by > 0 ? from : from - 1, element = elements[Math.min(elements.length - 1, Math.max(0, at))];
  element?.focus({preventScroll: true});
  element?.scrollIntoView({block: element.offsetHeight > innerHeight / 2 ? "start" : "center"});
  count();
}
function keep() {  // a function that brings the line which now stands below the bar back to its height on the screen
  const open = [...document.querySelectorAll(".fold")].map(fold => fold.open), y = scrollY;
  const line = [...document.querySelectorAll(".side > span")].find(e => e.getBoundingClientRect().bottom > edge() + 1 && shown(e));
  const top = line && line.getBoundingClientRect().top, script = line && (line.parentElement.matches(".l") ? view.left : view.right);
  return () => {
    const folds = document.querySelectorAll(".fold");
    if (folds.length === open.length) folds.forEach((fold, n) => { fold.open = open[n]; });
    const now = top < innerHeight && document.querySelector(`.side.${script === view.left ? "l" : "r"} > span[data-line="${line.dataset.line}"]`);
    if (now && shown(now)) scrollBy(0, now.getBoundingClientRect().top - top);
    else scrollTo(0, y);
  };
}
function setFolds(open) {
  for (const fold of document.querySelectorAll(".fold")) fold.open = open;
  byId("fold").textContent = open ? "fold all" : "unfold all";
  count();
}
function light(target) {  // a variable and its symbols, in both columns of its part
  const one = target.closest?.(".v");
  for (const lit of document.querySelectorAll(".lit")) lit.classList.remove("lit");
  for (const twin of one ? one.closest(".entry").querySelectorAll(`[data-v="${one.dataset.v}"]`) : []) twin.classList.add("lit");
}
const go = (...names) => { location.hash = names.filter(Boolean).join(".."); };
const actions = {
  next: () => move(view.hunks.filter(shown), 1), previous: () => move(view.hunks.filter(shown), -1),
  swap: () => view.right && (kept = keep(), go(view.right, view.left)),
  fold: () => setFolds(byId("fold").textContent === "unfold all"),
  family: () => { byId("family").ariaExpanded = document.documentElement.classList.toggle("ladder"); },
  skip: event => (event.preventDefault(), byId("main").focus()),
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
for (const menu of [byId("left"), byId("right")]) menu.addEventListener("change", () => go(byId("left").value, byId("right").value));
byId("only").addEventListener("change", (event, back = keep()) => view.left && (render(), back(), count()));
addEventListener("keydown", event => {
  const held = event.ctrlKey || event.altKey || event.metaKey || event.target.closest("select, input[type=range], [role=slider]");
  if (!byId("keys").checked || held) return;
  if (event.key === "c") byId("only").click();
  else if (event.key === "v" || event.key === "V") move([...document.querySelectorAll(".code .v")].filter(shown), event.key === "v" ? 1 : -1);
  else byId({n: "next", p: "previous", f: "fold", s: "swap"}[event.key])?.click();
});
for (const type of ["pointerover", "focusin"]) addEventListener(type, event => light(event.target));
addEventListener("mousedown", event => {
  const side = event.target.closest(".side");
  for (const name of ["l", "r"]) byId("main").classList.toggle("selecting-" + name, !!side && side.classList.contains(name));
});
addEventListener("toggle", count, true);
addEventListener("beforeprint", () => document.querySelectorAll(".play:empty").forEach(drawFigure));
addEventListener("scroll", () => places.set(location.hash, scrollY), {passive: true});
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
formulas.finally(show);
