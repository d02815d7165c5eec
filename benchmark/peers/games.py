"""MinAtar's games as ppo_images.py knows them, for every script: --env-id benchmark.peers.games:MinAtar/Asterix-v1."""

import gymnasium as gym

from ppo_images import GAMES

gym.registry.update(GAMES)
