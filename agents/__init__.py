"""The recurrent attention agent (Mnih et al. 2014) as a Stable-Baselines3 algorithm, and others to compare it with."""

from agents.algorithms import algorithm_names, get_algorithm, register_algorithm
from agents.episodes import EpisodeA2C, EpisodePPO
from agents.extractor import GlimpseExtractor
from agents.policy import RAMPolicy
from agents.pretrained import load_pretrained, pretrained_ids, pretrained_settings, save_pretrained
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
    "load_pretrained",
    "make_vec_env",
    "pretrained_ids",
    "pretrained_settings",
    "register_algorithm",
    "save_pretrained",
]
