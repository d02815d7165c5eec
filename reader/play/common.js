// Figures that one can play with. play.NAME is one: title, caption, at (the parts of scripts
// that it explains), the functions of its mathematics, and what kit.figure draws it from.
const play = {}, kit = {};  // kit: what they share

kit.clamp = (x, low, high) => Math.min(Math.max(x, low), high);
kit.sum = values => values.reduce((sum, value) => sum + value, 0);
kit.mean = values => kit.sum(values) / values.length;
kit.dot = (u, v) => kit.sum(u.map((x, i) => x * v[i]));
kit.range = (n, f = i => i) => Array.from({length: n}, (_, i) => f(i));
kit.sigmoid = x => 1 / (1 + Math.exp(-x));
kit.softplus = x => Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)));
kit.digits = (x, n) => (Math.abs(x) < 1e-9 ? 0 : x).toFixed(n).replace("-", "\u2212");
// A text with two decimals of each number, more of a small one, and none of an integer.
kit.words = (texts, ...values) => texts.map((text, i) => {
  const x = values[i - 1], size = Math.floor(Math.log10(Math.abs(x)));
  if (typeof x !== "number" || Number.isInteger(x)) return (x ?? "") + text;
  return kit.digits(x, Math.abs(x) < 0.095 ? kit.clamp(1 - size, 3, 5) : 2) + text;
}).join("").replace(/\s+/g, " ");

// A panel 400 wide: shapes in the units of its axes, as SVG. A plain one shows no axes.
kit.panel = ({title, x, y, label = "", height = 230, plain = false}) => {
  const [left, right, top, bottom] = [plain ? 6 : 40, 392, 26, height - (plain ? 6 : 34)];
  const px = value => String(Math.round(10 * value) / 10);
  const X = v => left + (v - x[0]) / (x[1] - x[0]) * (right - left);
  const Y = w => bottom - (w - y[0]) / (y[1] - y[0]) * (bottom - top);
  const at = ([v, w]) => `${px(X(v))} ${px(Y(w))}`, join = points => `M${points.join("L")}`;
  const write = (a, b, text, style) =>
    `<text class="${style}" x="${px(a)}" y="${px(b)}">${text}</text>`;
  const path = (d, style) => `<path class="${style}" d="${d}"/>`;
  const ticks = ([low, high]) => {
    const wish = (high - low) / 5, ten = 10 ** Math.floor(Math.log10(wish));
    const step = ten * [1, 2, 5, 10].find(k => k * ten >= wish), first = Math.ceil(low / step);
    return kit.range(Math.floor(high / step + 1e-9) - first + 1, i => [(first + i) * step,
      kit.digits((first + i) * step, Math.max(0, -Math.floor(Math.log10(step))))]);
  };
  const frame = plain ? [] : [write((left + right) / 2, height - 4, label, "mid"),
    ticks(y).map(([w, text]) => path(`M${left} ${px(Y(w))}H${right}`, "grid") +
      write(left - 5, Y(w) + 4, text, "end")),
    ticks(x).map(([v, text]) => write(X(v), bottom + 15, text, "mid"))];
  const panel = {
    title, height, at,
    inverse: (a, b) => [x[0] + (a - left) / (right - left) * (x[1] - x[0]),
      y[0] + (bottom - b) / (bottom - top) * (y[1] - y[0])],
    line: (points, style) => path(join(points.map(at)), `line ${style}`),
    // Between the ends [x, low, high] of a band.
    area: (ends, style) => path(join([...ends.map(([v, low]) => at([v, low])),
      ...ends.map(([v, , high]) => at([v, high])).reverse()]), `area ${style}`),
    curve: (f, style) => panel.line(
      kit.range(121, i => x[0] + i / 120 * (x[1] - x[0])).map(v => [v, f(v)]), style),
    dot: (v, w, style, r = 5) =>
      `<circle class="${style}" cx="${px(X(v))}" cy="${px(Y(w))}" r="${r}"/>`,
    bar: (v, from, to, width, style, opacity = 1) => {
      const [a, b] = [Y(from), Y(to)].sort((p, q) => p - q);
      return `<rect class="${style}" x="${px(X(v) - width / 2)}" y="${px(a)}" ` +
        `width="${px(width)}" height="${px(b - a)}" opacity="${opacity.toFixed(2)}"/>`;
    },
    // Texts [style, text] one below the other.
    legend: (v, w, lines, dx = 6, dy = 14) =>
      lines.map(([style, text], i) => write(X(v) + dx, Y(w) + dy + 15 * i, text, style)),
    arrow: (start, end, style) => {
      const [a, b, c, d] = [X(start[0]), Y(start[1]), X(end[0]), Y(end[1])];
      const size = Math.hypot(c - a, d - b) || 1, head = Math.min(9, size) / size;
      const [u, v] = [head * (c - a), head * (d - b)];
      const side = s => `${px(c - u + s * v / 2)} ${px(d - v - s * u / 2)}`;
      return path(`M${px(a)} ${px(b)}L${px(c - u)} ${px(d - v)}`, `line ${style}`) +
        path(`M${px(c)} ${px(d)}L${side(1)}L${side(-1)}Z`, style);
    },
    // Where f is at a level, by marching squares: it cuts edges whose ends lie on both sides.
    contour: (f, levels, style, n = 72) => {
      const spot = (i, j) => [x[0] + i / n * (x[1] - x[0]), y[0] + j / n * (y[1] - y[0])];
      const values = kit.range(n + 1, i => kit.range(n + 1, j => f(...spot(i, j))));
      const edges = [[0, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 0, 0, 1]];
      const cells = kit.range(n * n, k => [k % n, Math.floor(k / n)]);
      return path(levels.map(level => cells.map(([i, j]) => {
        const cuts = edges.flatMap(([a, b, u, v]) => {
          const p = values[i + a][j + b] - level, q = values[i + a + u][j + b + v] - level;
          const s = p / (p - q);
          return p < 0 === q < 0 ? [] : [at(spot(i + a + s * u, j + b + s * v))];
        });
        return cuts.length ? join(cuts.slice(0, 2)) : "";
      }).join("")).join(""), `line ${style}`);
    },
    // With all of this `inside`, cut at the edges.
    draw: inside => ({...panel, svg: [write(plain ? 6 : left, 15, title, "head"), frame,
      `<svg x="${left}" y="${top}" width="${right - left}" height="${bottom - top}" ` +
      `style="height:${bottom - top}px" ` +
      `viewBox="${left} ${top} ${right - left} ${bottom - top}">`,
      inside, "</svg>"].flat(Infinity).join("")}),
  };
  return panel;
};

// Fill `root`. state: what the reader can change. controls: sliders, {name, label, show, range:
// [least, most, step]}. view(state): {panels, text}. handles: points to drag in the first
// panel, {label, x, y, limits}, with x and y names in the state, or x fixed.
kit.figure = (root, figure) => {
  const {controls, handles = []} = figure, state = {...figure.state};
  const make = (html, parent) => {
    parent.insertAdjacentHTML("beforeend", html);
    return parent.lastElementChild;
  };
  root.innerHTML = '<div class="controls"></div><div class="panels"></div><output></output>';
  const [bar, wall, output] = root.children, after = [];  // after: what follows a change
  for (const {name, label, range, show} of controls) {
    const [min, max, step] = range, input = make(`<label><span>${label} <b></b></span>` +
      `<input type="range" min="${min}" max="${max}" step="${step}"></label>`, bar).lastChild;
    input.oninput = () => { state[name] = Number(input.value); update(); };
    after.push(() => {
      input.value = state[name];
      const digits = (String(step).split(".")[1] || "").length;
      const text = show ? show(state[name]) : kit.digits(state[name], digits);
      input.previousSibling.lastChild.textContent = input.ariaValueText = text;
    });
  }
  let {panels, text} = figure.view(state);
  const shapes = panels.map(({title, height}, i) => make(
    `<svg viewBox="0 0 400 ${height}" role="${handles[0] && !i ? "group" : "img"}" ` +
    `aria-label="${title}"><g></g></svg>`, wall));
  for (const {label, x, y, limits: [low, high]} of handles) {
    const axes = [x, y].filter(axis => axis in state), [shape] = shapes;
    const dot = make(`<g class="handle" tabindex="0" role="slider" aria-label="${label}" ` +
      `aria-valuemin="${low}" aria-valuemax="${high}">` +
      '<circle r="18"/><circle r="7"/></g>', shape);
    const set = (axis, to) => { state[axis] = kit.clamp(to, low, high); };
    after.push(() => {
      dot.setAttribute("transform", `translate(${panels[0].at([state[x] ?? x, state[y]])})`);
      dot.ariaValueNow = state[y];
      dot.ariaValueText = axes.map(axis => kit.digits(state[axis], 2)).join(", ");
    });
    dot.onpointerdown = event => dot.setPointerCapture(event.pointerId);
    dot.onpointermove = event => {
      if (!dot.hasPointerCapture(event.pointerId)) return;
      const box = shape.getBoundingClientRect(), scale = 400 / box.width;
      const place = panels[0].inverse(
        scale * (event.clientX - box.left), scale * (event.clientY - box.top));
      for (const axis of axes) set(axis, place[axis === x ? 0 : 1]);
      update();
    };
    const keys = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, Home: -50, End: 50};
    dot.onkeydown = event => {
      if (!keys[event.key] || event.ctrlKey || event.altKey || event.metaKey) return;
      event.preventDefault();
      const axis = /Left|Right/.test(event.key) ? axes[0] : y;
      set(axis, state[axis] + keys[event.key] * (high - low) / 50);
      update();
    };
  }
  function update() {
    ({panels, text} = figure.view(state));
    for (const [i, {svg}] of panels.entries()) shapes[i].firstChild.innerHTML = svg;
    for (const show of after) show();
    output.textContent = text;
  }
  update();
};
