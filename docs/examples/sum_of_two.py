"""A task of your own: two digits anywhere on a canvas, and the class is their sum."""

import numpy as np

import ram_envs


class SumOfTwo(ram_envs.GlimpseClassification):
    class_names = tuple(str(total) for total in range(19))

    def make_scenes(self, envs, index, streams):
        super().make_scenes(envs, index, streams)  # The first image, at a random place.
        first, streams = self.scenes[envs], ram_envs.start_streams(streams)  # (m, H, W)
        draws, streams = ram_envs.draw_uniform(streams, 1)  # (m, 1)
        other = (draws[:, 0] * self.num_images).astype(np.int64)
        super().make_scenes(envs, other, ram_envs.start_streams(streams))
        self.scenes[envs] = np.maximum(first, self.scenes[envs])
        self.labels[envs] += self.images.labels[other]


ram_envs.register_env("SumOfTwo-v0", SumOfTwo, canvas_size=60, glimpse_size=12, num_scales=3, num_glimpses=10)
