play.dpo = {
  // By the margin m, how much log(pi / pi_ref) of the chosen exceeds that of the rejected.
  loss: (margin, beta) => kit.softplus(-beta * margin),
  slope: (margin, beta) => -beta * kit.sigmoid(-beta * margin),
  // The policy: a softmax over chosen, rejected and a third, whose logits are linear in two
  // weights. Steps that tell the chosen from the rejected lift the third, too, if it shares.
  start: [Math.log(0.3), Math.log(0.3), Math.log(0.4)],
  features: share => [[1, 0], [1, -1], [0, share]],
  probabilities: (weights, share) => {
    const masses = play.dpo.features(share).map((f, i) =>
      Math.exp(play.dpo.start[i] + kit.dot(f, weights)));
    return masses.map(mass => mass / kit.sum(masses));
  },
  margin: (weights, share) =>  // chosen minus rejected, whose softmaxes' sums cancel
    kit.dot([1, -1, 0], play.dpo.features(share).map(f => kit.dot(f, weights))),
  gradient: (weights, share, beta, nll) => {
    const {features, margin, slope, probabilities} = play.dpo, f = features(share);
    const push = slope(margin(weights, share), beta), p = probabilities(weights, share);
    return [0, 1].map(k => push * (f[0][k] - f[1][k]) -
      nll * (f[0][k] - kit.dot(p, f.map(x => x[k]))));
  },
  path: (n, share, beta, nll) => kit.range(n).reduce(points => {
    const gradient = play.dpo.gradient(points.at(-1), share, beta, nll);
    return [...points, points.at(-1).map((w, k) => w - gradient[k])];
  }, [[0, 0]]),

  state: {step: 20, share: 1, beta: 0.3, nll: 0},
  controls: [{name: "step", label: "gradient steps", range: [0, 60, 1]},
    {name: "share", label: "lift of the third per fall of the rejected", range: [0, 2, 0.1]},
    {name: "beta", label: "\u03b2 kl_coef", range: [0.05, 1, 0.05]},
    {name: "nll", label: "nll_coef", range: [0, 0.5, 0.02]}],
  view({step, share, beta, nll}) {
    const {loss, slope} = this;
    const names = [["two", "chosen"], ["one", "rejected"], ["three", "third"]];
    const path = this.path(60, share, beta, nll), m = this.margin(path[step], share);
    const p = path.map(w => this.probabilities(w, share)), [first, now] = [p[0], p[step]];
    const left = kit.panel({title: "loss and gradient of the pair", x: [-6, 10], y: [-1, 3],
      label: "margin: log-ratio of the chosen minus the rejected's"});
    const right = kit.panel({title: "probabilities", x: [0, 60], y: [0, 1],
      label: "gradient step"});
    return {panels: [left.draw([left.curve(x => slope(x, beta), "one"),
      left.curve(x => loss(x, beta), "ink thick"), left.dot(m, loss(m, beta), "ink"),
      left.dot(m, slope(m, beta), "one"), left.legend(10, 3, [
        ["ink end", "\u2212log sigmoid(\u03b2 margin)"], ["one end", "its slope"]], -6)]),
    right.draw([right.line([[step, 0], [step, 1]], "dash thin"), names.map(([style], i) =>
      [right.line(p.map((q, k) => [k, q[i]]), style), right.dot(step, now[i], style)]),
    right.legend(0, 1, names)]),
    ], text: kit.words`Margin ${m}, loss ${loss(m, beta)}. ` + names.map(([, name], i) =>
      kit.words`${name} ${first[i]} \u2192 ${now[i]}`).join(", ")};
  },
};
