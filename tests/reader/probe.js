// What the tests of the page ask it in the browser. A function each, by name.
const probe = {
  // The menus show an address.
  shows: address => {
    const [left, right] = address.slice(1).split("/")[0].split("..");
    return document.getElementById("left").value === left &&
      document.getElementById("right").value === (right || "");
  },

  // The lines of a column by their numbers, or what is wrong with it.
  column: side => {
    const lines = [];
    for (const span of document.querySelectorAll(`.side.${side} > span`)) {
      const n = Number(span.dataset.line);
      if (n in lines) return `line ${n} twice`;
      if (span.previousSibling.textContent !== String(n + 1)) return `line ${n} has another number`;
      lines[n] = span.textContent;
    }
    return lines;
  },

  // Open all pairs of `texts`, every other one the other way round; return those whose columns are not the texts, or
  // that have no difference or nothing folded, or a figure twice.
  wrongPairs: async texts => {
    const wrong = [], names = Object.keys(texts);
    const same = (side, name) => JSON.stringify(probe.column(side)) === JSON.stringify(texts[name]);
    for (const [i, one] of names.entries()) for (const [j, other] of names.slice(i + 1).entries()) {
      const [left, right] = j % 2 ? [other, one] : [one, other];
      await new Promise(done => {
        addEventListener("hashchange", done, {once: true});
        location.hash = `${left}..${right}`;
      });
      const whole = same("l", left) && same("r", right) && probe.shows(location.hash);
      const lively = [".hunk", ".fold", ".note", "#top .loss"].every(x => document.querySelector(x));
      const figures = [...document.querySelectorAll("main [data-play]")].map(e => e.dataset.play);
      const twice = new Set(figures).size < figures.length;
      if (!whole || !lively || twice) wrong.push(location.hash);
    }
    return wrong;
  },

  isSeen: element => element.checkVisibility() && element.getClientRects().length > 0,

  // Texts with a contrast below 4.5 to what is behind them, and how many were looked at.
  poorContrast: () => {
    const parse = text => [...text.match(/[\d.]+/g).map(Number), 1].slice(0, 4);
    const linear = v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
    const luminance = color => {
      const [r, g, b] = color.slice(0, 3).map(v => linear(v / 255));
      return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = element => {
      for (let e = element; e; e = e.parentElement) {
        const color = parse(getComputedStyle(e).backgroundColor);
        if (color[3] > 0) return color;
      }
      return [255, 255, 255, 1];
    };
    const poor = [];
    let checked = 0;
    for (const e of document.querySelectorAll("body *")) {
      const words = [...e.childNodes].some(n => n.nodeType === Node.TEXT_NODE && n.data.trim());
      if (!words || !probe.isSeen(e)) continue;
      const style = getComputedStyle(e), ground = behind(e);
      const ink = parse(e.closest("svg") ? style.fill : style.color);
      const [a, b] = [luminance(ink), luminance(ground)].sort((x, y) => y - x);
      checked += 1;
      if ((a + 0.05) / (b + 0.05) < 4.5 || ground[3] < 1 || ink[3] < 1)
        poor.push(`${e.tagName} ${e.textContent.slice(0, 40)}: ${ink} on ${ground}`);
    }
    return [checked, poor];
  },

  // What has the focus: its tag, whether it is outlined, and its name for those who do not see it.
  focused: () => {
    const e = document.activeElement, outlined = getComputedStyle(e).outlineStyle !== "none";
    const label = e.labels && e.labels.length ? e.labels[0].textContent : "";
    return [e.tagName, outlined, e.getAttribute("aria-label") || label || e.textContent.trim()];
  },

  // Each line's side, number, kind and marked words, for one column.
  summary: side => [...document.querySelectorAll(`.side.${side}`)].filter(s => s.firstChild).map(s =>
    [s.lastChild.dataset.line, s.classList[2], ...[...s.querySelectorAll("mark")].map(m => m.textContent)].join()),

  // The most lines that any line of code takes on the screen.
  tallest: () => Math.max(...[...document.querySelectorAll(".side > span")].map(span =>
    span.getBoundingClientRect().height / parseFloat(getComputedStyle(span).lineHeight))),

  // Of rows with both sides: how much higher one is, and the gap between them.
  offsets: () => [...document.querySelectorAll(".row:has(.l + .r)")].filter(probe.isSeen).map(row => {
    const [l, r] = [...row.children].map(side => side.getBoundingClientRect());
    return [l.top - r.top, r.left - l.right];
  }),

  // Of each difference, the sides of its lines from top to bottom: "llrr".
  orders: () => [...document.querySelectorAll(".hunk")].map(hunk =>
    [...hunk.querySelectorAll(".side")].filter(probe.isSeen)
      .sort((a, b) => a.getBoundingClientRect().top - b.getBoundingClientRect().top)
      .map(s => s.classList[1]).join("")),

  // How much the layout has shifted since the page was opened.
  shift: () => new Promise(done => {
    let sum = 0;
    new PerformanceObserver(list => list.getEntries().forEach(e => { sum += e.value; }))
      .observe({type: "layout-shift", buffered: true});
    setTimeout(() => done(sum), 500);
  }),

  // The differences that are shown.
  hunks: () => [...document.querySelectorAll(".hunk")].filter(probe.isSeen),

  // How far from the top of the screen the line stands that defines something; null if no line does.
  placeOf: text => {
    const line = [...document.querySelectorAll(".side > span")].find(s => s.textContent.includes("def " + text));
    return line ? line.getBoundingClientRect().top : null;
  },

  // The colour that a variable of the stylesheet stands for.
  colour: name => {
    const e = document.body.appendChild(document.createElement("i"));
    e.style.color = `var(${name})`;
    const found = getComputedStyle(e).color;
    e.remove();
    return found;
  },

  // Whether an element has a background of its own.
  filled: element => getComputedStyle(element).backgroundColor !== "rgba(0, 0, 0, 0)",

  // Side and number of every line that is marked as different.
  marked: () => [...document.querySelectorAll(".side")].filter(s => s.firstChild && probe.filled(s))
    .map(s => [s.classList[1], s.lastChild.dataset.line].join()),

  // Pairs whose first screen lacks the sentence, the losses, the flow, or a coloured box or term.
  badFirstScreens: names => {
    const bad = [], fits = e => e && probe.isSeen(e) && e.getBoundingClientRect().bottom <= 800;
    for (const left of names) for (const right of names) if (left !== right) {
      view = {l: left, r: right};
      byId("main").innerHTML = `<div id="top">${topHtml()}</div>`;  // without the code, which takes long
      const whole = [".change p", ".loss.l .term", ".loss.r .term", ".flow"].every(x => fits(document.querySelector(x)));
      const cut = [...document.querySelectorAll(".loss")].some(e => e.scrollWidth > e.clientWidth || !fits(e));
      if (!whole || cut || !document.querySelector(".flow a.l, .flow a.r, .term.l, .term.r")) bad.push([left, right]);
    }
    return bad;
  },

  // What axe finds wrong by the rules of WCAG at AA; in the dark, with colours.
  axe: dark => axe.run({runOnly: dark ? ["color-contrast"] : ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}),

  // Take out the lines of a part or a fold beyond the first ones.
  shorten: () => document.querySelectorAll(":is(.rows, .rows .fold, .hunk) > :is(.row, .hunk):nth-child(n + 12)")
    .forEach(line => line.remove()),

  // Of every note that is seen its side, and what is wrong with its place by its code.
  notes: () => [...document.querySelectorAll(".entry .note")].filter(probe.isSeen).map(note => {
    const side = note.matches(".l") ? "l" : note.matches(".r") ? "r" : "";
    const code = [...note.closest(".entry").querySelectorAll(".side" + (side && "." + side))].filter(s => s.firstChild && probe.isSeen(s));
    const [a, b] = [note, code[0]].map(e => e.getBoundingClientRect());
    const above = a.bottom <= b.top + 1, column = innerWidth < 1100 || !side || Math.abs(a.left - b.left) < 40;
    return [side, above && column ? "" : note.textContent.slice(0, 60)];
  }),

  // Heights of a bracket around a fraction and of one around a letter.
  brackets: () => {
    const box = document.createElement("div");
    box.innerHTML = "<math displaystyle='true'><mrow><mo>(</mo><mfrac><mfrac><mi>a</mi><mi>b</mi></mfrac><mi>c</mi></mfrac><mo>)</mo></mrow></math>" +
      "<math><mo>(</mo><mi>a</mi><mo>)</mo></math>";
    document.body.append(box);
    const heights = [...box.children].map(m => m.querySelector("mo").getBoundingClientRect().height);
    box.remove();
    return heights;
  },

  // Whether the names chosen in the menus are whole.
  selectsFit: () => [...document.querySelectorAll("select")].every(select => {
    const pen = document.createElement("canvas").getContext("2d");
    pen.font = getComputedStyle(select).font;
    return pen.measureText(select.selectedOptions[0].text).width + 40 < select.clientWidth;
  }),

  // Scroll from the top to the bottom.
  readThrough: async () => {
    for (let y = 0; y < document.body.scrollHeight; y += 600) {
      scrollTo(0, y);
      await new Promise(requestAnimationFrame);
      await new Promise(requestAnimationFrame);
    }
    scrollTo(0, 0);
  },

  // Variables of notes that are marked nowhere in the code beside them.
  variablesWithoutCode: () => [...document.querySelectorAll(".note button")].map(b => b.dataset.v && [b.closest(".entry"), b.dataset.v])
    .filter(([entry, name]) => !entry.querySelector(`.code [data-v="${name}"]`)).map(pair => pair[1]),
};
