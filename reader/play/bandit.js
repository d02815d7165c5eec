play.bandit = {
  corners: [[0, 0], [1, 0], [0.5, Math.sqrt(0.75)]],
  plane: vector => [0, 1].map(k => kit.dot(vector, play.bandit.corners.map(c => c[k]))),
  // The policy at a place of the triangle, a little inside of it.
  policy: (x, y) => {
    const third = y / Math.sqrt(0.75), second = x - third / 2;
    const inside = [1 - second - third, second, third].map(p => Math.max(p, 0.02));
    return inside.map(p => p / kit.sum(inside));
  },
  // Of one action a, by the logits of a softmax: (r_a - b) grad log pi(a).
  gradient: (policy, rewards, baseline, a) =>
    policy.map((p, k) => (rewards[a] - baseline) * ((k === a) - p)),
  mean: (policy, rewards) => policy.map((p, k) => p * (rewards[k] - kit.dot(policy, rewards))),
  // The expected squared distance of a single gradient from the mean.
  spread: (policy, rewards, baseline) => {
    const {gradient, mean} = play.bandit, middle = mean(policy, rewards);
    return kit.dot(policy, policy.map((_, a) => kit.sum(
      gradient(policy, rewards, baseline, a).map((g, k) => (g - middle[k]) ** 2))));
  },
  // The baseline of least spread: a mean of the rewards, each by pi_a |grad log pi_a|^2.
  best: (policy, rewards) => {
    const weights = policy.map(p => p * (1 - 2 * p + kit.dot(policy, policy)));
    return kit.dot(weights, rewards) / kit.sum(weights);
  },

  state: {baseline: 0, shift: 1, x: 0.45, y: 0.3},
  handles: [{label: "the policy", x: "x", y: "y", limits: [0, 1]}],
  controls: [{name: "baseline", label: "baseline b", range: [-1, 7, 0.05]},
    {name: "shift", label: "added to all rewards", range: [-1, 3, 0.1]}],
  view(state) {
    const {corners, plane, gradient, mean} = this, {baseline, shift} = state;
    const policy = this.policy(state.x, state.y), rewards = [1, 2, 3].map(r => r + shift);
    const value = kit.dot(policy, rewards), middle = mean(policy, rewards);
    const from = plane(policy), to = vector => plane(vector).map((u, k) => from[k] + 0.3 * u);
    const triangle = kit.panel({title: "gradients by the logits, one per action",
      plain: true, height: 330, x: [-0.25, 1.25], y: [-0.17, 0.98]});
    const curve = kit.panel({title: "spread of one gradient; dashed: V, ring: least",
      label: "baseline", height: 330, x: [-1, 7], y: [-1, 16]});
    const singles = policy.map((_, a) => gradient(policy, rewards, baseline, a));
    const best = this.best(policy, rewards), spread = b => this.spread(policy, rewards, b);
    [state.x, state.y] = from;  // what was dragged out comes back
    return {panels: [triangle.draw([triangle.line([...corners, corners[0]], "thin"),
      rewards.map((r, a) => triangle.legend(...corners[a],
        [["ink mid", `r = ${kit.digits(r, 1)}`]], a < 2 ? 0 : 40, a < 2 ? 18 : 4)),
      singles.map(g => triangle.arrow(from, to(g), "one")),
      triangle.arrow(from, to(middle), "ink thick"),
      triangle.legend(-0.25, 0.98, [["one", "of one action"], ["ink", "their mean"]])]),
    curve.draw([curve.line([[value, -1], [value, 16]], "dash two"),
      curve.dot(best, spread(best), "one hollow", 8),
      curve.curve(spread, "one"), curve.dot(baseline, spread(baseline), "one")]),
    ], text: kit.words`Expected reward V = ${value}. Spread ${spread(baseline)}, with b = 0 ${
      spread(0)}, least at b = ${best}. Length of the mean: ${Math.hypot(...middle)}.`};
  },
};
