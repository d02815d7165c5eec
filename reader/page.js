"use strict";
const byId = id => document.getElementById(id);
const all = css => [...document.querySelectorAll(css)];
const data = JSON.parse(byId("data").textContent), HOME = [...byId("main").childNodes];
const SAME = 0, CHANGED = 2;  // kinds of rows; 1: only indented, 3: on one side only
const STYLES = ["same", "same", "changed", "only"];
const LINES = {l: "one", r: "two dash"};  // of the curves
let view = {};

const escape = text => text.replace(/[&<>"]/g, c => `&#${c.charCodeAt(0)};`);
const foldHtml = (title, inner, id) =>
  `<details class="fold" id="part-${id}"><summary>${title}</summary>${inner}</details>`;
const address = part => `#${view.l}..${view.r}/${part.replace(" ", "-")}`;  // of a part

// ---- Lines ----
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
// Both columns of a part. What differs is a hunk; a side whose code does not differ has .words.
function rowsHtml(entry, names) {
  const scripts = [view.l, view.r].map(name => ({name, ...data.scripts[name]}));
  const next = scripts.map(({parts}, s) => parts[entry[s]]?.[2]);
  let html = "", differed = false;
  for (const [kind, a, b = a] of entry[2]) {
    if (differed !== (kind !== SAME))
      html += differed ? "</div>" : '<div class="hunk" tabindex="-1">';
    differed = kind !== SAME;
    for (let k = 0; k < (kind === CHANGED ? 1 : Math.max(a, b)); k++) {
      const lines = [a, b].map((of, s) => kind !== CHANGED && k >= of ? null :
        lineHtml(data.lines[scripts[s].lines[next[s]]], kind === CHANGED ? of : [], names));
      const code = lines.map(line => line?.replace(/<span class="[cd]">.*?<\/span>/g, ""));
      const sides = lines.map((line, s) => {
        if (line === null) return `<div class="side ${"lr"[s]}"></div>`;
        const words = kind === CHANGED ? !/<mark>/.test(code) : !code[s].trim();
        const sign = line && ["", "\u21e5", "~", "-+"[s]][kind], n = next[s]++;
        return `<div class="side ${"lr"[s]} ${STYLES[kind]}${words ? " words" : ""}">` +
          `<a href="../${scripts[s].name}.py#L${n + 1}" tabindex="-1" data-sign="${sign}">` +
          `${n + 1}</a><span data-line="${n}"${/# =+</.test(line) ? ' class="rule"' : ""}>` +
          `${line}</span></div>`;
      });
      html += `<div class="row">${sides.join("")}</div>`;
    }
  }
  return html + (differed ? "</div>" : "");
}

// ---- Parts ----
function partHtml(entry) {
  const [i, j, rows] = entry, p = data.scripts[view.l].parts[i];
  const q = data.scripts[view.r].parts[j], [name, section, , , n] = q || p;
  const both = p && q, id = name.replace(" ", "-"), side = p ? "l" : "r";
  const note = (part, side) => part && part[4] >= 0 ?
    `<div class="note ${side}" data-of="${view[side]}">${data.notes[part[4]]}</div>` : "";
  const notes = both && p[4] === n ? note(p, "") : note(p, "l") + note(q, "r");
  const variables = [p, q].flatMap(part => data.variables[part?.[4]] ?? []);
  const names = variables.length &&
    RegExp(`(?<!(?<!self|args)\\.)\\b(?:${variables.join("|")})\\b`, "g");
  const here = [p && `${view.l}.${p[0]}`, q && `${view.r}.${q[0]}`];
  const figures = Object.keys(play).filter(x => !view.figures.has(x) &&
    play[x].at?.some(at => here.includes(at)));
  figures.forEach(x => view.figures.add(x));  // of two parts it stands by, the first has it
  const alike = rows.every(([kind]) => kind === SAME);
  const body = `<div class="entry">${notes && `<div class="notes">${notes}</div>`}` +
    `<div class="code">${rowsHtml(entry, names)}</div></div>` +
    figures.map(x => `<figure class="play" data-play="${x}"><h3>${play[x].title}</h3>` +
      `<div></div><figcaption>${play[x].caption}</figcaption></figure>`).join("");
  if (name.toLowerCase() === section.toLowerCase()) return `<div id="part-${id}"></div>${body}`;
  if (alike) return foldHtml(`${name}: ${rows[0][1]} lines without a difference` +
    (notes && ", with a note"), body, id);
  const other = both && p[0] !== name ? p[0] : "";
  const title = other ? `<b class="l">${other}</b> \u21c4 <b class="r">${name}</b>` : name +
    (both ? "" : ` <small>only in <b class="${side}">${view[side]}.py</b></small>`);
  return `${other && `<span id="part-${other.replace(" ", "-")}"></span>`}` +
    `<h3 id="part-${id}"><a href="${address(name)}">${title}</a></h3>${body}`;
}
function bodyHtml() {
  const mirror = ([kind, ...rest]) => [kind, ...rest.reverse()];
  const entries = data.pairs[view.key] ||
    data.pairs[`${view.r}..${view.l}`].map(([i, j, rows]) => [j, i, rows.map(mirror)]);
  const [l, r] = [view.l, view.r].map(name => data.scripts[name].parts);
  const sections = Map.groupBy(entries, ([i, j]) => (l[i] ?? r[j])[1]);
  return [...sections].map(([section, entries]) => {
    const html = entries.map(partHtml).join(""), n = html.split('class="hunk"').length - 1;
    return section !== "Header" && section !== "Scaffold" ? `<h2>${section}</h2>${html}` :
      foldHtml(`${section} of the file, differences: ${n}`, html, `all-${section}`);
  }).join("");
}

// ---- What changes ----
function changeHtml() {  // a sentence, or one of each step up from the left and down again
  const up = name => name ? [name, ...up(data.scripts[name].parent)] : [];
  const own = data.changes[`${view.l}..${view.r}`] || data.changes[`${view.r}..${view.l}`];
  const [a, b] = [up(view.l), up(view.r)], only = (x, y) => x.filter(name => !y.includes(name));
  const steps = [...only(a, b), ...only(b, a).reverse()];
  const link = name => steps.length > 1 ? `<a href="#${name}">${name}.py</a> ` : "";
  const texts = own ? [own] : steps.map(name => link(name) + data.scripts[name].change);
  return `<div class="change ${texts[1] ? "steps" : ""}"><p>${texts.join("</p><p>")}</p></div>`;
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
    const own = boxes => boxes.map(box => link(box, "r")).join("");
    let html = "", rest = data.scripts[view.r].flow[stage];
    for (const box of data.scripts[view.l].flow[stage]) {
      const at = rest.indexOf(box);
      html += at < 0 ? link(box, "l") : own(rest.slice(0, at)) + link(box, "") + "</div><div>";
      rest = rest.slice(at + 1);
    }
    return `<div class="stage"><b>${stage}</b><div>${html}${own(rest)}</div></div>`;
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
  const each = show => [...new Set(runs.map(([, run]) => show(run)))].join(" and ");
  const middle = chart.statistic === "iqm" ? "mean of the middle half (IQM)" : "mean";
  const text = `Return by ${by}, ${middle} over n = ${each(run => run.n)} seeds, 95% band; ` +
    "with the names, the final evaluation and its 95% interval (" + each(({folder}) =>
    `<a href="../benchmark/results/${folder}/report.md">report</a>`) + ").";
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
  const titles = ["l", "r"].map(s => `<b class="${s}">${data.scripts[view[s]].title}</b>`);
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
    view = {l, r, key, figures: new Set()};
    document.title = `${l ? `${l} and ${r}` : "Policy gradients"}, side by side`;
    document.documentElement.className = l ? "pair" : "";
    byId("family").open = !l;
    [byId("left").value, byId("right").value] = [l, r];
    for (const link of all("#bar a")) link.href = `#/${view[link.className]}`;
    if (l) byId("main").innerHTML = `<div id="top">${topHtml()}</div>${bodyHtml()}`;
    else byId("main").replaceChildren(...HOME);
    for (const figure of all("[data-play]:not(:has(.controls))")) seen.observe(figure);
    for (const formula of all(".eq, .loss")) sizes.observe(formula);
    publish();
  }
  const part = byId("part-" + anchor);
  for (const fold of all(".fold")) fold.open ||= fold.contains(part);
  const y = history.state?.y;  // where the reader was, if this is a way back
  if (part || y) all(".home").forEach(home => home.classList.add("whole"));  // laid out
  if (part && y === undefined) part.scrollIntoView();
  else if (old !== undefined || y) scrollTo(0, y || 0);
  view.address = location.hash;
}
function publish() {  // links to files lead to GitHub from its pages
  const [, owner] = location.hostname.match(/^(.+)\.github\.io$/) || [];
  const home = `https://github.com/${owner}/${location.pathname.split("/")[1]}/blob/HEAD/`;
  if (owner) for (const link of all('main a[href^="../"]'))
    link.href = home + link.getAttribute("href").slice(3);
}
function draw(figure) {
  seen.unobserve(figure);
  kit.figure(figure.children[1], play[figure.dataset.play]);
}
const seen = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting)
  .forEach(entry => draw(entry.target)), {rootMargin: "400px"});
const sizes = new ResizeObserver(entries => {  // the keyboard scrolls formulas too wide
  for (const {target: e} of entries) e.tabIndex = e.scrollWidth > e.clientWidth ? 0 : -1;
});

// ---- What the reader does ----
const box = element => element.getBoundingClientRect(), edge = () => box(byId("bar")).bottom;
// To the next or previous of some elements, from the one that has the focus and is seen, or
// from the top of the screen.
function move(css, by) {
  const elements = all(css).filter(element => element.checkVisibility());
  const now = elements.indexOf(document.activeElement.closest?.(css));
  const here = now >= 0 && box(elements[now]).top < innerHeight &&
    box(elements[now]).bottom > edge();
  const first = [...elements, null].findIndex(e => !e || box(e).top > edge() - 1);
  const at = here ? now + by : by > 0 ? first : first - 1;
  const element = elements[kit.clamp(at, 0, elements.length - 1)];
  element?.focus({preventScroll: true});
  element?.scrollIntoView({block: element.offsetHeight > innerHeight / 2 ? "start" : "center"});
}
// A variable and its symbols light up; a click goes to its code, or back, and keeps them lit.
for (const type of ["pointerover", "focusin", "click"]) addEventListener(type, ({target}) => {
  const one = target.closest?.(".entry .v"), to = one?.closest(".note") ? ".code" : ".note";
  const twins = one?.closest(".entry").querySelectorAll(`[data-v="${one.dataset.v}"]`) ?? [];
  const style = type === "click" ? "kept" : "lit";
  for (const old of all("." + style)) old.classList.remove(style);
  for (const twin of twins) twin.classList.add(style);
  if (type === "click") [...twins].find(e => e.closest(to))?.scrollIntoView({block: "center"});
});
const hunks = () => byId("only").checked ? ".hunk:has(.side:not(.words, :empty))" : ".hunk";
const actions = {
  next: () => move(hunks(), 1),
  previous: () => move(hunks(), -1),
  swap: () => {  // both ways are as high, so the reader stays where they are
    const open = all(".fold").map(fold => fold.open), y = scrollY;
    history.pushState(null, "", `#${view.r}..${view.l}`);
    show();
    for (const [n, fold] of all(".fold").entries()) fold.open = open[n];
    scrollTo(0, y);
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
for (const button of all("#bar button")) button.onmousedown = () => false;  // keeps the focus
for (const menu of all("select")) menu.addEventListener("change", () => {
  location.hash = `${byId("left").value}..${byId("right").value}`;
});
addEventListener("keydown", event => {
  const field = event.target.closest("select, input[type=range], [role=slider]");
  if (!byId("keys").checked || field || event.ctrlKey || event.altKey || event.metaKey) return;
  const id = {n: "next", p: "previous", f: "fold", s: "swap", c: "only"}[event.key];
  if (view.l && id) byId(id).click();
  if (/^v$/i.test(event.key)) move(".code .v", event.key === "v" ? 1 : -1);
});
addEventListener("beforeprint", () => all("[data-play]:has(> div:empty)").forEach(draw));
for (const type of ["scrollend", "click"]) addEventListener(type, () => {
  if (view.address === location.hash) history.replaceState({y: scrollY}, "");
}, true);
addEventListener("hashchange", show);
history.scrollRestoration = "manual";
formulas.finally(show);
