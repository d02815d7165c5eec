play.ppo = {
  surrogate: (ratio, advantage, clip) =>
    Math.min(ratio * advantage, kit.clamp(ratio, 1 - clip, 1 + clip) * advantage),
  // Its derivative by the ratio: A, but 0 beyond the edge that A pushes towards.
  slope: (ratio, advantage, clip) =>
    (advantage > 0 ? ratio <= 1 + clip : ratio >= 1 - clip) ? advantage : 0,
  approxKl: ratios => kit.mean(ratios.map(ratio => ratio - 1 - Math.log(ratio))),
  clipFrac: (ratios, clip) => kit.mean(ratios.map(r => Number(Math.abs(r - 1) > clip))),

  clips: [0.1, 0.2, 0.3, Infinity],
  state: {epoch: 1, choice: 0, advantage: 1},
  controls: [{name: "epoch", label: "epoch", range: [1, 5, 1]},
    {name: "choice", label: "\u03b5 clip_coef", range: [0, 3, 1],
      show: i => i < 3 ? String(play.ppo.clips[i]) : "none"},
    {name: "advantage", label: "A of the one sample", range: [-1.5, 1.5, 0.1]}],
  view({choice, epoch, advantage}) {
    const {surrogate, slope} = this, clip = this.clips[choice];
    const samples = this.data[choice][epoch - 1], ratios = samples.map(([ratio]) => ratio);
    const loss = kit.panel({title: "one sample: objective and gradient", x: [0, 2],
      y: [-3, 3], label: "ratio of the new to the old probability"});
    const cloud = kit.panel({title: `epoch ${epoch} of 5: 256 samples' advantages`,
      x: [0.2, 1.6], y: [-5, 2], label: "ratio"});
    const edges = panel => clip > 1 ? "" : [1 - clip, 1 + clip].map(edge =>
      panel.line([[edge, -9], [edge, 9]], "dash two"));
    const stopped = ([r, a]) => a !== 0 && !slope(r, a, clip);
    return {panels: [loss.draw([edges(loss), loss.curve(r => r * advantage, "thin dash"),
      loss.curve(r => slope(r, advantage, clip), "one"),
      loss.curve(r => surrogate(r, advantage, clip), "ink thick"),
      loss.legend(0, -1.7, [["ink", "min(ratio A, clipped A)"], ["one", "its gradient"]])]),
    cloud.draw([edges(cloud), samples.map(([r, a]) =>
      cloud.dot(r, a, stopped([r, a]) ? "one hollow" : "one", 3))]),
    ], text: kit.words`Epoch ${epoch}: ratios from ${Math.min(...ratios)} to ${
      Math.max(...ratios)}, approx_kl ${this.approxKl(ratios)}, clip_frac ${
      this.clipFrac(ratios, clip)} (beyond either edge); ${
      samples.filter(stopped).length} of ${samples.length} samples push no more.`};
  },
};
