"""The recurrent attention agent (Mnih et al. 2014) as a Stable-Baselines3 algorithm."""

from agents.policy import RAMPolicy
from agents.ram import RAM
from agents.vec_env import GymnasiumVecEnv, make_vec_env

__all__ = ["RAM", "GymnasiumVecEnv", "RAMPolicy", "make_vec_env"]
