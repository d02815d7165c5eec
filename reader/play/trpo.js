play.trpo = {
  // Two weights w, two actions, pi(1|x) = sigmoid(w x). Of each state: its features x, and by
  // how much action 1 is worth more than action 0. All means are exact, over both actions.
  states: [[[4, 0.5], 1.2], [[3, -1], -0.4], [[5, 1.5], -1.6], [[-4, 0], 0.8], [[1, 2], 1.5],
    [[-2, 1.5], 0.9]],
  p: (w, x) => kit.sigmoid(kit.dot(w, x)),
  // mean of ratio * A, with the advantages A under the old policy.
  surrogate: (states, old, w) => kit.mean(states.map(([x, worth]) =>
    worth * (play.trpo.p(w, x) - play.trpo.p(old, x)))),
  // mean KL(pi_old || pi); the log of 1 - pi(1|x) is -softplus(w x).
  kl: (states, old, w) => kit.mean(states.map(([x]) => {
    const [was, is] = [kit.dot(old, x), kit.dot(w, x)];
    return kit.sigmoid(was) * (was - is) + kit.softplus(is) - kit.softplus(was);
  })),
  gradient: (states, w) => [0, 1].map(i => kit.mean(states.map(([x, worth]) =>
    worth * play.trpo.p(w, x) * (1 - play.trpo.p(w, x)) * x[i]))),
  // F + damping I, with F the mean of p (1 - p) x x^T.
  fisher: (states, w, damping) => [0, 1].map(i => [0, 1].map(j => (i === j) * damping +
    kit.mean(states.map(([x]) => play.trpo.p(w, x) * (1 - play.trpo.p(w, x)) * x[i] * x[j])))),
  // Scaled so that the model of the KL, 1/2 s^T F s, is at the bound.
  toBound: (direction, F, bound) => {
    const curvature = kit.dot(direction, F.map(row => kit.dot(row, direction)));
    return direction.map(d => d * Math.sqrt(2 * bound / curvature));
  },
  // One step: both directions to the bound, and the tries of the line search, each {fraction,
  // w, kl, gain, good}. The last one is taken if it is good.
  step: (states, old, bound, damping, shrinking = 0.8, most = 10) => {
    const {gradient, fisher, toBound, kl, surrogate} = play.trpo, tries = [];
    const g = gradient(states, old), F = fisher(states, old, damping), [[a, b], [, d]] = F;
    const natural = toBound([d * g[0] - b * g[1], a * g[1] - b * g[0]], F, bound);
    for (let i = 0; i < most && !tries.at(-1)?.good; i++) {
      const fraction = shrinking ** i, w = old.map((x, k) => x + fraction * natural[k]);
      const far = kl(states, old, w), gain = surrogate(states, old, w);
      tries.push({fraction, w, kl: far, gain, good: gain > 0 && far <= bound});
    }
    return {natural, plain: toBound(g, F, bound), F, tries};
  },

  state: {u: 0, v: -1, power: -1, damping: 0},
  handles: [{label: "the old policy's two weights", x: "u", y: "v", limits: [-2, 2]}],
  controls: [{name: "power", label: "target_kl", range: [-2.5, 0, 0.1],
    show: power => kit.digits(10 ** power, 3)},
  {name: "damping", label: "cg_damping", range: [0, 0.5, 0.01]}],
  view({u, v, power, damping}) {
    const {states, surrogate, kl} = this, old = [u, v], bound = 10 ** power;
    const map = kit.panel({title: "two weights, and the surrogate's contours", height: 330,
      x: [-2.2, 2.2], y: [-2, 2]});
    this.contours ??= map.contour((a, b) => surrogate(states, [0, 0], [a, b]),
      kit.range(41, i => i / 20 - 1), "grid");  // another old policy adds a constant
    const {natural, plain, tries} = this.step(states, old, bound, damping);
    const to = direction => old.map((x, k) => x + direction[k]);
    const far = w => kl(states, old, w), gain = w => surrogate(states, old, w);
    const last = tries.at(-1), ball = map.contour((a, b) => far([a, b]), [bound], "two");
    return {panels: [map.draw([this.contours, ball,
      map.arrow(old, to(plain), "three"), map.arrow(old, to(natural), "one"),
      tries.map(({w, good}) => map.dot(...w, good ? "one" : "one hollow")),
      map.legend(-2.2, 2, [["one", "natural gradient"], ["three", "plain gradient"],
        ["two", "KL at the bound"], ["one", "dots: tries; hollow: too far"]])]),
    ], text: last.good ? kit.words`Try ${tries.length} of 10 is taken: KL ${last.kl} of ${
      bound}, gain ${last.gain}. The plain gradient, as long by the quadratic model, gains ${
      gain(to(plain))} at KL ${far(to(plain))}.` : "No try is taken: the policy stays."};
  },
};
