play.gae = {
  deltas: (rewards, values, nextValues, terminated, gamma) => rewards.map((reward, t) =>
    reward + gamma * (terminated[t] ? 0 : nextValues[t]) - values[t]),
  advantages: (deltas, done, gamma, lambda) => deltas.reduceRight((later, delta, t) =>
    [delta + (done[t] ? 0 : gamma * lambda * (later[0] ?? 0)), ...later], []),
  // Of the errors in the advantage of step t: (gamma lambda)^k up to the episode's end.
  weights: (t, done, gamma, lambda) => done.map((_, k) =>
    k < t || done.slice(t, k).some(Boolean) ? 0 : (gamma * lambda) ** (k - t)),

  state: {lambda: 0.8, gamma: 0.98, mark: 16, misread: 0},
  controls: [{name: "lambda", label: "\u03bb gae_lambda", range: [0, 1, 0.01]},
    {name: "gamma", label: "\u03b3 gamma", range: [0.8, 1, 0.01]},
    {name: "mark", label: "marked step", range: [1, 64, 1]},
    {name: "misread", label: "time limit", range: [0, 1, 1],
      show: i => ["truncated", "taken for a failure"][i]}],
  view({lambda, gamma, mark, misread}) {
    const {rewards, values, next_values: nextValues, terminated, truncated} = this.data;
    const n = rewards.length, done = terminated.map((end, t) => end || truncated[t]);
    const ends = misread ? done : terminated;
    const deltas = this.deltas(rewards, values, nextValues, ends, gamma);
    const advantages = this.advantages(deltas, done, gamma, lambda);
    const weights = this.weights(mark - 1, done, gamma, lambda);
    const show = (title, y, numbers, style, strength) => {
      const panel = kit.panel({title, y, x: [0, n + 1], label: "step", height: 190});
      return panel.draw([strength ? numbers.map((number, t) =>
        panel.bar(t + 1, 0, number, 4, t === mark - 1 ? "ink" : style, strength[t])) :
        panel.line(numbers.map((number, t) => [t + 1, number]), style),
      done.map((end, t) => end ? panel.line([[t + 1.5, -99], [t + 1.5, 99]],
        terminated[t] ? "ink" : "dash") : "")]);
    };
    return {panels: [
      show("values V(obs); line: failed, dashed: time limit", [14, 17], values, "three"),
      show("errors \u03b4", [-16, 12], deltas, "one", weights.map(w => 0.25 + 0.75 * w)),
      show("weights of the errors in the marked A", [0, 1.05], weights, "two", []),
      show("advantages A", [-16, 12], advantages, "one", []),
    ], text: kit.words`Step ${mark}: \u03b4 = ${deltas[mark - 1]}, A = ${
      advantages[mark - 1]}. Weights sum to ${kit.sum(weights)}: about as many errors count.`};
  },
};
