play.squash = {
  logSlope: u => 2 * (Math.log(2) - u - kit.softplus(-2 * u)),
  logNormal: (u, mean, std) =>
    -0.5 * ((u - mean) / std) ** 2 - Math.log(std) - 0.5 * Math.log(2 * Math.PI),
  logProb: (u, mean, std) => play.squash.logNormal(u, mean, std) - play.squash.logSlope(u),
  q: action => 1 - 2 * (action - 0.5) ** 2,  // a critic's value of each action
  // The expectation over the policy of f(u, log pi), by a fine grid of the noise.
  expect: (f, mean, std) => kit.sum(kit.range(121, i => (i - 60) / 10).map(noise => {
    const u = mean + std * noise, weight = Math.exp(play.squash.logNormal(noise, 0, 1)) / 10;
    return weight * f(u, play.squash.logProb(u, mean, std));
  })),
  value: (mean, std) => play.squash.expect(u => play.squash.q(Math.tanh(u)), mean, std),
  entropy: (mean, std) => play.squash.expect((_, logPi) => -logPi, mean, std),
  // Rows [std, E[Q], H, E[Q] + alpha H], and the one whose sum is greatest.
  table: (mean, alpha) => kit.range(60, i => 0.05 * (i + 1)).map(std => {
    const {value, entropy} = play.squash, [v, h] = [value(mean, std), entropy(mean, std)];
    return [std, v, h, v + alpha * h];
  }),
  best: table => table.reduce((a, b) => a[3] >= b[3] ? a : b),

  state: {mean: 0.5, std: 0.6, power: -0.7},
  controls: [{name: "mean", label: "mean of u", range: [-1.5, 1.5, 0.05]},
    {name: "std", label: "std of u", range: [0.1, 3, 0.05]},
    {name: "power", label: "\u03b1 temperature", range: [-2, 0.5, 0.1],
      show: power => kit.digits(10 ** power, 3)}],
  view({mean, std, power}) {
    const {logProb, logNormal, value, entropy} = this, us = kit.range(200, i => i / 25 - 4);
    const alpha = 10 ** power, table = this.table(mean, alpha), H = entropy(mean, std);
    const [best, , , most] = this.best(table);
    const density = kit.panel({title: "densities", height: 260, x: [-3, 3], y: [0, 2.5],
      label: "u, and the action a = tanh(u)"});
    const price = kit.panel({height: 260, x: [0, 3], y: [-3, 2], label: "std of u",
      title: "E[Q] + \u03b1 H, with Q = 1 \u2212 2 (a \u2212 0.5)\u00b2"});
    return {panels: [density.draw([
      density.curve(u => Math.exp(logNormal(u, mean, std)), "dash"),
      density.line(us.map(u => [Math.tanh(u), Math.exp(logProb(u, mean, std))]), "ink thick"),
      density.legend(-3, 2.5, [["", "of u (dashed)"], ["ink", "of a"]])]),
    price.draw([price.line(table.map(([s, v]) => [s, v]), "two"),
      price.line(table.map(([s, , h]) => [s, alpha * h]), "one"),
      price.line(table.map(([s, , , sum]) => [s, sum]), "ink thick"),
      price.dot(std, value(mean, std) + alpha * H, "ink"),
      price.line([[best, -3], [best, most]], "dash"), price.legend(3, -3,
        [["two end", "E[Q]"], ["one end", "\u03b1 H"], ["ink end", "sum"]], -6, -36)]),
    ], text: kit.words`Entropy ${H}, ${H > -1 ? "above" : "below"} the target \u22121: SAC ${
      H > -1 ? "lowers" : "raises"} \u03b1. Best std for this mean and \u03b1: ${best}.`};
  },
};
