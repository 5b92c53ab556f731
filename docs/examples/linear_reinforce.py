"""An algorithm of your own, as a generator: REINFORCE with one linear layer, which looks at random."""

import itertools

import numpy as np
import torch


def linear_reinforce(env, seed=0, learning_rate=0.01):
    rng, obs, num_choices = np.random.default_rng(seed), env.reset(), env.action_space.shape[0] - 2
    policy = torch.nn.Linear(obs["glimpse"][0].size, num_choices)
    optimizer = torch.optim.Adam(policy.parameters(), learning_rate)

    def act(obs, state=None, episode_start=None, deterministic=True):
        scores = policy(torch.as_tensor(obs["glimpse"]).flatten(1))  # (N, K)
        choice = scores.argmax(1) if deterministic else torch.distributions.Categorical(logits=scores).sample()
        location = rng.uniform(-1, 1, (len(choice), 2))
        actions = np.concatenate([location, np.eye(num_choices)[choice.numpy()]], 1)
        return actions, scores.log_softmax(1)[range(len(choice)), choice]

    for steps in itertools.count(env.num_envs, env.num_envs):
        actions, log_prob = act(obs, deterministic=False)
        obs, rewards, dones, _ = env.step(actions)
        loss = -log_prob @ torch.as_tensor((rewards - rewards.mean()) * dones, dtype=torch.float32)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield steps, act
