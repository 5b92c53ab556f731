"""The recurrent attention agent (Mnih et al. 2014) as a Stable-Baselines3 algorithm, and others to compare it with."""

from agents.algorithms import algorithm_names, get_algorithm, register_algorithm
from agents.episodes import EpisodeA2C, EpisodePPO
from agents.extractor import GlimpseExtractor
from agents.policy import RAMPolicy
from agents.ram import RAM
from agents.recurrent_policy import RecurrentPolicy
from agents.vec_env import GymnasiumVecEnv, make_vec_env

__all__ = [
    "RAM",
    "EpisodeA2C",
    "EpisodePPO",
    "GlimpseExtractor",
    "GymnasiumVecEnv",
    "RAMPolicy",
    "RecurrentPolicy",
    "algorithm_names",
    "get_algorithm",
    "make_vec_env",
    "register_algorithm",
]
