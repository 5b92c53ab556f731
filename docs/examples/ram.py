"""The recurrent attention model of Mnih et al. 2014, "Recurrent Models of Visual Attention", in one file.

The agent sees 7 patches of 8x8 pixels of a digit, chooses each next place, and at the end names the digit.
Symbols and sections are the paper's. Not the paper's: Adam, tanh around the location, the class learned at every step.

python docs/examples/ram.py --epochs 5.5 --seed 0
"""

import argparse
import time
from typing import Any

import gymnasium as gym
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import ram_envs  # noqa: F401 (registers the environments)

T, N, STD = 7, 128, 0.1  # glimpses of an image, images side by side, deviation of a location in a scene that is 2 wide


class RAM(nn.Module):
    """The networks of section 3.1, in the sizes of section 4."""

    def __init__(self) -> None:
        super().__init__()
        self.what, self.where = nn.Linear(8 * 8, 128), nn.Linear(2, 128)
        self.glimpse = nn.Linear(128 + 128, 256)  # one matrix for Linear(h_g) + Linear(h_l)
        self.core = nn.Linear(256 + 256, 256)  # one matrix for Linear(h_{t-1}) + Linear(g_t)
        for layer in (self.what, self.where, self.glimpse):
            nn.init.orthogonal_(layer.weight, 2**0.5)
        self.location, self.action, self.baseline = nn.Linear(256, 2), nn.Linear(256, 10), nn.Linear(256, 1)

    def forward(self, obs: dict[str, Any], h: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """From x_t, l_{t-1} and h_{t-1} to h_t, the mean of l_t, the class scores and the baseline b_t."""
        rho = (torch.as_tensor(obs["glimpse"]).flatten(1) - 0.13) / 0.31  # (N, 1, 8, 8) -> (N, 64), mean 0, std 1
        h_g, h_l = self.what(rho).relu(), self.where(torch.as_tensor(obs["location"])).relu()  # (N, 128) each
        g = self.glimpse(torch.cat([h_g, h_l], dim=1)).relu()  # (N, 256)
        h = self.core(torch.cat([h, g], dim=1)).relu()  # (N, 256)
        seen = h.detach()  # The class alone trains core and glimpse network.
        mean = torch.tanh(0.3 * self.location(seen))  # (N, 2); 0.3, or one step of Adam moves all locations too far
        return h, mean, self.action(h), self.baseline(seen).squeeze(1)  # (N, 256), (N, 2), (N, 10), (N,)


def main(arguments: list[str] | None = None) -> float:
    """Train and evaluate; the share of the 10,000 validation images named wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=float, default=5.5, help="how often each image is learned from")
    parser.add_argument("--seed", type=int, default=0, help="of the weights, the images' order and the locations")
    options = parser.parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(1)  # Matrices this small gain nothing from more.
    model, num_updates = RAM(), round(options.epochs * 50_000 / N)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.002, fused=True)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, num_updates)  # to 0

    # Section 3.2: the hybrid loss, on the 50,000 training images. "SameStep": an episode's last step begins the next one.
    envs = gym.make_vec("GlimpseMNIST-v0", N, num_glimpses=T, image_order="shuffled", autoreset_mode="SameStep")
    obs, info = envs.reset(seed=options.seed)  # The first glimpses are taken at random places.
    for update in range(1, num_updates + 1):
        label, h, log_pis, baselines, all_scores = torch.as_tensor(info["label"]), torch.zeros(N, 256), [], [], []
        for _ in range(T):
            h, mean, scores, b = model(obs, h)
            location = torch.normal(mean.detach(), STD)  # l_t (N, 2)
            log_pis.append(-(location - mean).square().sum(1) / (2 * STD**2))  # (N,), but for a constant
            baselines.append(b)
            all_scores.append(scores)
            obs, reward, _, _, info = envs.step({"location": location.numpy(), "class": scores.argmax(1).numpy()})
        R = torch.as_tensor(reward).float()  # (N,), 1 where the class was right, else 0
        log_pi, b = torch.stack(log_pis[:-1]), torch.stack(baselines[:-1])  # (T-1, N) each: nobody looks at l_T
        class_loss = F.cross_entropy(torch.cat(all_scores), label.repeat(T))  # (T N, 10), (T N,)
        location_loss = -(log_pi * (R - b.detach())).mean()  # REINFORCE
        baseline_loss = (R - b).square().mean()
        optimizer.zero_grad()
        # STD^2: the gradient of log pi grows as 1 / STD; in these units it is l - mean.
        (class_loss + STD**2 * location_loss + 0.5 * baseline_loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        schedule.step()
        if update % 200 == 0:
            print(f"update {update} of {num_updates}: {R.mean():.0%} right, class loss {class_loss:.3f}", flush=True)

    # Section 4: each of the 10,000 validation images once, 500 side by side, without noise on the locations.
    every: Any = {"split": "validation", "image_order": "sequential", "autoreset_mode": "SameStep"}
    envs = gym.make_vec("GlimpseMNIST-v0", 500, num_glimpses=T, **every)
    (obs, _), num_right = envs.reset(), 0.0
    for step in range(20 * T):
        h = h if step % T else torch.zeros(500, 256)
        with torch.no_grad():
            h, mean, scores, _ = model(obs, h)
        obs, reward, *_ = envs.step({"location": mean.numpy(), "class": scores.argmax(1).numpy()})
        num_right += reward.sum()  # 0 before the last step
    error = float(1 - num_right / 10_000)
    print(f"{error:.2%} of 10,000 validation images wrong, after {time.process_time():.0f} CPU seconds")
    return error


if __name__ == "__main__":
    main()
