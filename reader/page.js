"use strict";
const byId = id => document.getElementById(id);
const all = css => [...document.querySelectorAll(css)];
const data = JSON.parse(byId("data").textContent), HOME = [...byId("main").childNodes];
const [SAME, INDENTED, CHANGED, LEFT, RIGHT, QUIET] = [0, 1, 2, 3, 4, 5];  // kinds of rows
const SIGNS = ["", "\u21e5", "~", "-", "+", ""];
const STYLES = ["same", "same", "changed", "only", "only", "quiet"];
const LINES = {l: "one", r: "two dash"};  // of the curves
let view = {};

const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const plural = (n, word) => `${n} ${word}${n === 1 ? "" : "s"}`;
const sideOf = name => name === view.l ? "l" : name === view.r ? "r" : "";
const foldHtml = (title, inner, id) =>
  `<details class="fold" id="part-${id}"><summary>${title}</summary>${inner}</details>`;
// The address of a part, which may have a space in its name.
const address = part => `#${view.l}..${view.r}/${part.replace(" ", "-")}`;

// ---- Lines ----
function alignment() {  // as seen from the left
  const mirror = [SAME, INDENTED, CHANGED, RIGHT, LEFT];
  const swap = ([kind, ...rest]) => [mirror[kind], ...rest.reverse()];
  return data.pairs[`${view.l}..${view.r}`] ||
    data.pairs[`${view.r}..${view.l}`].map(([i, j, rows]) => [j, i, rows.map(swap)]);
}
function inCode(tokens, marks) {  // those of the marks that lie in no docstring and no comment
  const stop = tokens.findIndex((kind, i) => i % 2 === 0 && /^[dc]$/.test(kind));
  const code = stop < 0 ? tokens : tokens.slice(0, stop);
  const end = code.filter((_, i) => i % 2).join("").trimEnd().length;
  return marks.filter((_, i) => marks[i - i % 2] < end);
}
function lineHtml(tokens, marks, names) {
  let html = "", end = 0;
  for (let i = 0; i < tokens.length; i += 2) {
    const [kind, text] = tokens.slice(i, i + 2), start = end;
    end += text.length;
    const cuts = [start, ...marks.filter(m => start < m && m < end), end];
    const pieces = cuts.slice(1).map((to, k) => {
      let piece = escape(text.slice(cuts[k] - start, to - start));
      if (names && !/[dc]/.test(kind))
        piece = piece.replace(names, '<b class="v" data-v="$&" tabindex="-1">$&</b>');
      return marks.findIndex(m => m > cuts[k]) % 2 === 1 ? `<mark>${piece}</mark>` : piece;
    }).join("");
    html += kind ? `<span class="${kind}">${pieces}</span>` : pieces;
  }
  return html;
}
function sideHtml(side, number, kind, marks, names) {
  const tokens = data.lines[data.scripts[view[side]].lines[number]], n = number + 1;
  return `<div class="side ${side} ${STYLES[kind]}"><a href="../${view[side]}.py#L${n}" ` +
    `tabindex="-1" data-sign="${tokens.length ? SIGNS[kind] : ""}">${n}</a>` +
    `<span data-line="${number}">${lineHtml(tokens, marks, names)}</span></div>`;
}
// {kind, l, r} of each row; what only the right has stands beside what only the left has.
function rowsOf([i, j, runs], names) {
  const rows = [], next = {}, codeOnly = byId("only").checked;
  for (const [side, n] of [["l", i], ["r", j]])
    next[side] = n < 0 ? 0 : data.scripts[view[side]].parts[n][2];
  let free = [];
  for (const [kind, ...rest] of runs) for (let k = kind === CHANGED ? 1 : rest[0]; k; k--) {
    const row = {kind, l: '<div class="side l"></div>', r: '<div class="side r"></div>'};
    const sides = kind === LEFT ? ["l"] : kind === RIGHT ? ["r"] : ["l", "r"], marks = {};
    const tokens = side => data.lines[data.scripts[view[side]].lines[next[side]]];
    for (const [n, side] of sides.entries()) {
      const whole = kind === CHANGED ? rest[n] : [0, 1];
      marks[side] = codeOnly ? inCode(tokens(side), whole) : whole;
    }
    if (kind > INDENTED && !Object.values(marks).flat().length) row.kind = QUIET;
    if (kind < LEFT || (kind === RIGHT && tokens("r").includes("d"))) free = [];  // docstrings
    for (const side of sides) {
      const shown = kind === CHANGED ? marks[side] : [];
      row[side] = sideHtml(side, next[side]++, row.kind, shown, names);
    }
    if (kind === RIGHT && free.length) free.shift().r = row.r;
    else rows.push(row);
    if (kind === LEFT) free.push(row);
  }
  return rows;
}
function rowsHtml(entry, names) {
  let html = "", differed = false;
  for (const {kind, l, r} of rowsOf(entry, names)) {
    const differs = kind !== SAME && kind !== QUIET;
    if (differs !== differed) html += differs ? '<div class="hunk" tabindex="-1">' : "</div>";
    html += `<div class="row">${l}${r}</div>`;
    differed = differs;
  }
  return html + (differed ? "</div>" : "");
}

// ---- Parts ----
function partHtml(entry) {
  const [i, j, rows] = entry, p = data.scripts[view.l].parts[i];
  const q = data.scripts[view.r].parts[j], [name, section, , , n] = q || p;
  const both = p && q, id = name.replace(" ", "-"), side = p ? "l" : "r";
  const note = (n, side, of) => n < 0 ? "" :
    `<div class="note ${side}" data-of="${of}">${data.notes[n]}</div>`;
  const notes = both && p[4] === n ? note(n, "", "both") :
    (p ? note(p[4], "l", `${view.l}.py`) : "") + (q ? note(n, "r", `${view.r}.py`) : "");
  const variables = [p, q].flatMap(x => x && x[4] >= 0 ? data.variables[x[4]] : []);
  const names = variables.length &&
    RegExp(`(?<!(?<!self|args)\\.)\\b(?:${variables.join("|")})\\b`, "g");
  const here = [p && `${view.l}.${p[0]}`, q && `${view.r}.${q[0]}`];
  const figures = Object.keys(play).filter(x => play[x].at?.some(at => here.includes(at)));
  const alike = rows.every(([kind]) => kind === SAME);
  const body = `<div class="entry">${notes && `<div class="notes">${notes}</div>`}` +
    `<div class="code">${rowsHtml(entry, names)}</div></div>` +
    figures.map(x => `<figure class="play" data-play="${x}"></figure>`).join("");
  if (name.toLowerCase() === section.toLowerCase()) return `<div id="part-${id}"></div>${body}`;
  if (alike) return foldHtml(`${name}: ${plural(rows[0][1], "line")} without a difference` +
    (notes && ", with a note"), body, id);
  const other = both && p[0] !== name ? p[0] : "";
  const title = other ? `<b class="l">${other}</b> \u21c4 <b class="r">${name}</b>` : name +
    (both ? "" : ` <small>only in <b class="${side}">${view[side]}.py</b></small>`);
  return `${other && `<span id="part-${other.replace(" ", "-")}"></span>`}` +
    `<h3 id="part-${id}"><a href="${address(name)}">${title}</a></h3>${body}`;
}
function bodyHtml() {
  const sections = new Map(), partOf = ([i, j]) =>
    j < 0 ? data.scripts[view.l].parts[i] : data.scripts[view.r].parts[j];
  for (const entry of alignment()) {
    const section = partOf(entry)[1];
    sections.set(section, (sections.get(section) || "") + partHtml(entry));
  }
  return [...sections].map(([section, html]) => {
    const n = plural(html.split('class="hunk"').length - 1, "difference");
    return section !== "Header" && section !== "Scaffold" ? `<h2>${section}</h2>${html}` :
      foldHtml(`${section} of the file: ${n}`, html, `all-${section}`);
  }).join("");
}

// ---- What changes ----
function changeHtml() {  // a sentence, or one of each step up from the left and down again
  const up = name => name ? [name, ...up(data.scripts[name].parent)] : [];
  const own = data.changes[`${view.l}..${view.r}`] || data.changes[`${view.r}..${view.l}`];
  const [a, b] = [up(view.l), up(view.r)], only = (x, y) => x.filter(name => !y.includes(name));
  const steps = [...only(a, b), ...only(b, a).reverse()];
  if (own || steps.length === 1)
    return `<div class="change"><p>${own || data.scripts[steps[0]].change}</p></div>`;
  return `<div class="change steps">${steps.map(name => `<p><a class="${sideOf(name)}" ` +
    `href="#${name}">${name}.py</a> ${data.scripts[name].change}</p>`).join("")}</div>`;
}
function lossHtml(side, other) {
  const bare = math =>  // without spaces and the sizes of brackets
    math.replace(/<mspace[^>]*>|(min|max)size="[^"]*"|<mrow *(\/>|><\/mrow>)/g, "");
  const [own, theirs] = [side, other].map(x => data.scripts[view[x]].loss), groups = [];
  const twins = new Map([...theirs.given, ...theirs.terms].map(([x, math]) => [x, bare(math)]));
  const style = ([title, math]) => !title || twins.get(title) === bare(math) ? "" : side;
  for (const [title, math] of own.terms) {  // what has no name stays with what is before it
    const html = `<span class="term ${style([title, math])}">${math}` +
      `${title && `<small>${title}</small>`}</span>`;
    groups.push((title ? "" : groups.pop() || "") + html);
  }
  const same = !own.terms.some(style) && own.terms.length === theirs.terms.length;
  const given = own.given.filter(style).map(([title, math]) =>
    `<div class="given ${side}"><small>${title}</small> ${math}</div>`);
  return `<div class="loss ${side}"><h3><a href="${address(own.part)}">${view[side]}.` +
    `${own.part}</a>${same ? " <small>the same; what enters it differs</small>" : ""}</h3>` +
    `<div>${groups.map(html => `<span class="terms">${html}</span>`).join("")}</div>` +
    `<div>${given.join(" ")}</div></div>`;
}
function flowHtml() {  // a box of both scripts across the middle; what differs left and right
  const stages = {rollout: ["ROLLOUT"], advantage: data.groups[2], update: ["UPDATE"]};
  const drawn = Object.entries(stages).map(([stage, names]) => {
    const link = (box, side) => {
      const of = data.scripts[view[side || "r"]].parts.find(part => names.includes(part[0]));
      return `<a class="${side}" href="${address(of[0])}">${escape(box)}</a>`;
    };
    const column = (boxes, side) =>
      `<div class="${side}">${boxes.map(box => link(box, side)).join("")}</div>`;
    const split = (a, b) => a.length || b.length ?
      `<div class="split">${column(a, "l")}${column(b, "r")}</div>` : "";
    const [ours, theirs] = ["l", "r"].map(side => [...data.scripts[view[side]].flow[stage]]);
    let html = "", own = [];
    for (const box of ours) {
      const at = theirs.indexOf(box);
      if (at < 0) own.push(box);
      else {
        html += split(own, theirs.splice(0, at)) + link(theirs.shift(), "");
        own = [];
      }
    }
    return `<div class="stage"><b>${stage}</b>${html}${split(own, theirs)}</div>`;
  });
  return `<div class="flow" role="group" aria-label="Data flow">${drawn.join("")}</div>`;
}
function flagsHtml(runs) {  // that both runs have with other values, or that are no default
  const names = new Set(runs.flatMap(([, run]) => Object.keys(run.flags)));
  const items = [...names].filter(name => name !== "env_id").map(name => {
    const values = runs.filter(([, run]) => run.flags[name])
      .map(([side, run]) => [side, ...run.flags[name]]);
    const differ = values.length === 2 ? String(values[0][1]) !== String(values[1][1]) :
      values.some(([, , usual]) => !usual);
    return differ && `<code>--${name.replaceAll("_", "-")}</code>&nbsp;` +
      values.map(([side, value]) => `<b class="${side}">${value}</b>`).join("&nbsp;/&nbsp;");
  }).filter(Boolean);
  const title = runs.length === 2 ? "Flags that differ" : "Flags that are not the default";
  return items.length ? `${title}: ${items.join(", ")}.` : "";
}
function chartHtml(env, sides) {
  const chart = data.charts[env], runs = sides.map(s => [s, chart.scripts[view[s]]]);
  const points = runs.flatMap(([, run]) => run.curve), [[, {by}]] = runs;
  const values = points.flatMap(point => point.slice(1));
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const panel = kit.panel({title: env, x: [0, Math.max(...points.map(point => point[0]))],
    y: [low, high + 0.02 * (high - low)], label: `thousands of ${by}`});
  const drawn = panel.draw(runs.map(([side, {curve}]) => [
    panel.area(curve.map(([x, , low, high]) => [x, low, high]), LINES[side]),
    panel.line(curve, LINES[side])]));
  const legend = runs.map(([side, run]) => `<p><b class="${side}">${view[side]}.py</b> ` +
    '<svg class="key" width="30" height="8" aria-hidden="true"><g class="play">' +
    `<path class="line ${LINES[side]}" d="M0 4H30"/></g></svg> ${run.evaluation}</p>`);
  const links = [...new Set(runs.map(([, run]) => run.folder))].map(folder =>
    `<a href="../benchmark/results/${folder}/report.md">report</a>`);
  const middle = chart.statistic === "iqm" ? "mean of the middle half (IQM)" : "mean";
  const text = `Return by ${by}, ${middle} over n = ` +
    `${[...new Set(runs.map(([, run]) => run.n))].join(" and ")} seeds, 95% band; with the ` +
    `names, the final evaluation and its 95% interval (${links.join(", ")}).`;
  const flat = runs.some(([, run]) => /saturated/.test(run.evaluation)) ?
    "Saturated: all seeds alike, so an interval would say nothing of the spread." : "";
  const notes = [text, flagsHtml(runs), ...sides.map(s => data.scripts[view[s]].curve), flat];
  return '<figure class="curves"><svg class="chart" viewBox="0 0 400 230" role="img" ' +
    `aria-label="Learning curves: ${env}"><g class="play">${drawn.svg}</g></svg><figcaption>` +
    `${legend.join("")}${notes.map(note => note && `<p>${note}</p>`).join("")}` +
    "</figcaption></figure>";
}
function topHtml() {
  const envs = sides => Object.keys(data.charts).filter(env =>
    sides.every(side => data.charts[env].scripts[view[side]])).map(env => [env, sides]);
  const common = envs(["l", "r"]);
  const drawn = common.length ? common : ["l", "r"].flatMap(s => envs([s]).slice(0, 1));
  const titles = ["l", "r"].map(side => `<a class="${side}" href="#/${view[side]}" ` +
    `title="its section in the essay">${data.scripts[view[side]].title}</a>`);
  return `<h2>${titles.join(" and ")}</h2>${changeHtml()}` +
    `<div class="losses">${lossHtml("l", "r")}${lossHtml("r", "l")}</div>${flowHtml()}` +
    `<h2>Measured</h2>${common.length ? "" : "<p>No environment was run with both.</p>"}` +
    `<div class="charts">${drawn.map(([env, sides]) => chartHtml(env, sides)).join("")}</div>`;
}

// ---- The view, from the address ----
// #left..right/part is a pair, #name a script by its parent, #/section a place in the essay.
function show() {
  const [pair, anchor] = location.hash.slice(1).split("/"), [a, b] = pair.split("..");
  const known = name => Object.hasOwn(data.scripts, name), old = view.key;
  let [l, r] = known(b) && b !== a ? [a, b] : [data.scripts[a]?.parent, a];
  if (known(a) && !l) [l, r] = Object.keys(data.scripts);  // the first two
  if (!known(a)) l = r = "";
  const key = `${l}..${r}`;
  if (old !== key) {
    view = {l, r, key};
    document.title = `${l ? `${l} and ${r}` : "Policy gradients"}, side by side`;
    document.documentElement.className = l ? "pair" : "";
    byId("family").open = !l;
    render();
  }
  const part = byId("part-" + anchor);
  for (let fold = part?.closest("details"); fold; fold = fold.parentElement.closest("details"))
    fold.open = true;
  const y = history.state?.y;  // where the reader was, if this is a way back
  if (part || y) all(".home").forEach(home => home.classList.add("whole"));  // laid out
  if (part && y === undefined) part.scrollIntoView();
  else if (old !== undefined || y) scrollTo(0, y || 0);
  view.address = location.hash;
}
function render() {
  [byId("left").value, byId("right").value] = [view.l, view.r];
  if (view.l) byId("main").innerHTML = `<div id="top">${topHtml()}</div>${bodyHtml()}`;
  else byId("main").replaceChildren(...HOME);
  for (const figure of all(".play:not([data-drawn])"))
    if (play[figure.dataset.play]) seen.observe(figure);
  for (const formula of all(".eq, .loss")) sizes.observe(formula);
  const [, owner] = location.hostname.match(/^(.+)\.github\.io$/) || [];
  const home = `https://github.com/${owner}/${location.pathname.split("/")[1]}/blob/HEAD/`;
  if (owner) for (const link of all('main a[href^="../"]'))
    link.href = home + link.getAttribute("href").slice(3);
}
function drawFigure(figure) {
  const {title, caption} = play[figure.dataset.play];
  figure.innerHTML = `<h3>${title}</h3><div></div><figcaption>${caption}</figcaption>`;
  figure.dataset.drawn = "";
  seen.unobserve(figure);
  play[figure.dataset.play].draw(figure.children[1]);
}
const seen = new IntersectionObserver(entries => entries.forEach(entry =>
  entry.isIntersecting && drawFigure(entry.target)), {rootMargin: "400px"});
const sizes = new ResizeObserver(entries => {  // the keyboard scrolls formulas too wide
  for (const {target} of entries)
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
});

// ---- What the reader does ----
const shown = element => !element.closest("details:not([open])");
const box = element => element.getBoundingClientRect(), edge = () => box(byId("bar")).bottom;
// To the next or previous of some elements, from the one that has the focus and is seen, or
// from the top of the screen.
function move(css, by) {
  const elements = all(css).filter(shown);
  const now = elements.indexOf(document.activeElement.closest?.(css));
  const here = now >= 0 && box(elements[now]).top < innerHeight &&
    box(elements[now]).bottom > edge();
  const first = [...elements, null].findIndex(e => !e || box(e).top > edge() - 1);
  const at = here ? now + by : by > 0 ? first : first - 1;
  const element = elements[kit.clamp(at, 0, elements.length - 1)];
  element?.focus({preventScroll: true});
  element?.scrollIntoView({block: element.offsetHeight > innerHeight / 2 ? "start" : "center"});
}
// A function that brings the line which now stands below the bar back to its height.
function keep() {
  const open = all(".fold").map(fold => fold.open), y = scrollY;
  const line = all(".side > span").find(e => box(e).bottom > edge() + 1 && shown(e));
  const top = line && box(line).top, script = line && view[line.parentElement.classList[1]];
  return () => {
    const folds = all(".fold");
    if (folds.length === open.length) folds.forEach((fold, n) => { fold.open = open[n]; });
    const now = top < innerHeight && document.querySelector(
      `.side.${sideOf(script)} > span[data-line="${line.dataset.line}"]`);
    if (now && shown(now)) scrollBy(0, box(now).top - top);
    else scrollTo(0, y);
  };
}
function light(target) {  // a variable and its symbols, in both columns of its part
  const one = target.closest?.(".v"), name = one?.dataset.v;
  for (const lit of all(".lit")) lit.classList.remove("lit");
  for (const twin of one ? one.closest(".entry").querySelectorAll(`[data-v="${name}"]`) : [])
    twin.classList.add("lit");
}
addEventListener("click", event => {  // from a symbol to its code, or back
  const one = event.target.closest(".entry .v"), to = one?.closest(".note") ? "code" : "note";
  if (one) one.closest(".entry").querySelector(`.${to} [data-v="${one.dataset.v}"]`)
    ?.scrollIntoView({block: "center"});
});
const actions = {
  next: () => move(".hunk", 1),
  previous: () => move(".hunk", -1),
  swap: () => {
    const back = keep();
    history.pushState(null, "", `#${view.r}..${view.l}`);
    show();
    back();
  },
  fold: () => {
    const open = all(".fold").some(fold => !fold.open);
    for (const fold of all(".fold")) fold.open = open;
  },
  skip: event => {
    event.preventDefault();
    byId("main").focus();
  },
};
for (const [id, action] of Object.entries(actions)) byId(id).addEventListener("click", action);
for (const menu of all("select")) menu.addEventListener("change", () => {
  location.hash = `${byId("left").value}..${byId("right").value}`;
});
byId("only").addEventListener("change", () => {
  const back = keep();
  render();
  back();
});
addEventListener("keydown", event => {
  const field = event.target.closest("select, input[type=range], [role=slider]");
  if (!byId("keys").checked || field || event.ctrlKey || event.altKey || event.metaKey) return;
  const id = {n: "next", p: "previous", f: "fold", s: "swap", c: "only"}[event.key];
  if (view.l && id) byId(id).click();
  if (/^v$/i.test(event.key)) move(".code .v", event.key === "v" ? 1 : -1);
});
for (const type of ["pointerover", "focusin"])
  addEventListener(type, event => light(event.target));
addEventListener("beforeprint", () => all(".play:empty").forEach(drawFigure));
for (const type of ["scrollend", "click"]) addEventListener(type, () => {
  if (view.address === location.hash) history.replaceState({y: scrollY}, "");
}, true);
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
formulas.finally(show);
