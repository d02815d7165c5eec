play.groups = {
  leaveOneOut: rewards => rewards.map(r => r - (kit.sum(rewards) - r) / (rewards.length - 1)),
  groupRelative: (rewards, normStd) => {
    const group = rewards.map(r => r - rewards[0]), middle = kit.mean(group);
    const apart = group.map(r => r - middle);
    const std = Math.sqrt(kit.dot(apart, apart) / (apart.length - 1));
    return apart.map(a => normStd ? a / (std + 1e-8) : a);
  },
  // What a token's log-probability is multiplied by, at ratio 1 and without the KL term.
  tokenWeights: (advantages, lengths, norm, longest) => advantages.map((advantage, i) =>
    advantage / [lengths[i], kit.mean(lengths), longest][norm]),

  state: {norm: 0, kind: 2, r0: 1, r1: 0, r2: 1, r3: 0, r4: 0, r5: 1, r6: 0, r7: 0},
  handles: kit.range(8, i =>
    ({label: `reward of completion ${i + 1}`, x: i + 1, y: `r${i}`, limits: [0, 1]})),
  controls: [{name: "kind", label: "advantages", range: [0, 2, 1],
    show: i => ["RLOO", "minus mean", "GRPO"][i]},
  {name: "norm", label: "length_norm", range: [0, 2, 1],
    show: i => ["own", "mean", "max: 8"][i]}],
  view(state) {
    const lengths = [2, 5, 3, 8, 4, 6, 2, 8];
    const lines = [["two", "RLOO: minus the others' mean"], ["three", "minus the group's mean"],
      ["one", "GRPO: and divided by the std"]];
    const kinds = [this.leaveOneOut, r => this.groupRelative(r, false),
      r => this.groupRelative(r, true)];
    const rewards = kit.range(8, i => state[`r${i}`]), middle = kit.mean(rewards);
    const all = kinds.map(kind => kind(rewards)), label = "completion", x = [0.4, 8.6];
    const weights = this.tokenWeights(all[state.kind], lengths, state.norm, 8);
    const most = Math.max(...weights.map(Math.abs), 1e-9);
    const top = kit.panel({title: "rewards: drag them", x, y: [-0.1, 1.1], label});
    const low = kit.panel({title: "advantages", x, y: [-3, 3], label});
    const rows = kit.panel({title: "weight of each token", plain: true, x: [0, 10], y: [8, 0]});
    const times = (kind, rewards) => kit.sum(kind(rewards).map(Math.abs)) /
      kit.sum(this.leaveOneOut(rewards).map(Math.abs));  // as much as RLOO's
    const share = kit.panel({title: "weight of a prompt, as a multiple of RLOO's", x: [1, 7],
      y: [0, 3], label: "right ones of eight"});
    return {panels: [top.draw([top.line([[0, middle], [9, middle]], "dash"),
      rewards.map((r, i) => top.line([[i + 1, -1], [i + 1, r]], "thin"))]),
    low.draw([all.map((values, k) => values.map((a, i) =>
      low.bar(i + 0.75 + 0.25 * k, 0, a, 8, lines[k][0]))), low.legend(0.4, -1.2, lines)]),
    rows.draw(weights.map((w, i) => [kit.range(lengths[i], k => rows.bar(k + 0.5, i + 0.1,
      i + 0.9, 34, w > 0 ? "two" : "one", 0.08 + 0.92 * Math.abs(w) / most)),
    rows.legend(lengths[i], i + 0.7, [["ink", kit.digits(w, 2)]], 6, 0)])),
    share.draw(kinds.map((kind, k) => share.line(kit.range(7, n => [n + 1,
      times(kind, kit.range(8, i => Number(i <= n)))]), lines[k][0]))),
    ], text: kit.words`Mean ${middle}. ` + (most < 1e-8 ? "All rewards are equal." :
      kit.words`This prompt weighs ${times(kinds[state.kind], rewards)}${
        state.kind ? " times as much as with RLOO" : ": RLOO is the measure of the others"}.`)};
  },
};
