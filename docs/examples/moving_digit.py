"""A task of your own: a digit that drifts over the canvas while it is looked at, by up to `speed` pixels a step."""

import numpy as np

import ram_envs


class MovingDigit(ram_envs.GlimpseClassification):
    state_names = (*ram_envs.GlimpseClassification.state_names, "velocity")

    def __init__(self, num_envs=1, *, speed: int = 3, **options):
        super().__init__(num_envs, **options)
        self.speed, self.velocity = speed, np.zeros((num_envs, 2), np.int64)

    def make_scenes(self, envs, index, streams):
        super().make_scenes(envs, index, streams)
        self.velocity[envs] = (2 * ram_envs.draw_uniform(ram_envs.start_streams(streams), 2)[0] - 1) * (self.speed + 0.5)

    def advance(self, where):
        for env in np.arange(self.num_envs)[slice(None) if where is None else where]:
            scene = self.gaze.retina.inner(self.scenes)[env]  # (H, W)
            scene[:] = np.roll(scene, self.velocity[env], axis=(-2, -1))


ram_envs.register_env("MovingDigit-v0", MovingDigit, canvas_size=60, glimpse_size=12, num_scales=3, num_glimpses=8)
