"""Makes schedulers.json: python generate.py > schedulers.json (diffusers 0.42.1, torch 2.15, scipy).

What diffusers' schedulers do with a model that anyone can compute, p = 0.4 x + w t / 1000, and with noise that
anyone can count: value k is ((7919 k + 13) mod 1009) / 504 - 1. Start noise and step noise come from one count.
"""
import importlib
import json

import diffusers
import numpy as np
import torch

LENGTH = 8
WEIGHTS = torch.tensor([(i - 3.5) / 7 for i in range(LENGTH)], dtype=torch.float32)

SD = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
ZERO_SNR = {"rescale_betas_zero_snr": True, "prediction_type": "v_prediction", "timestep_spacing": "trailing"}
DYNAMIC = {"use_dynamic_shifting": True}

# class, config, steps, how it is called: options of set_timesteps and of step
CASES = [
    ("DDIMScheduler", {}, 7, {}, {}),
    ("DDIMScheduler", {"clip_sample": False, "prediction_type": "sample"}, 10, {}, {}),
    ("DDIMScheduler", {**SD, "set_alpha_to_one": False, "steps_offset": 1, "clip_sample": False}, 20, {}, {}),
    ("DDIMScheduler", {**SD, **ZERO_SNR, "clip_sample_range": 0.5}, 25, {}, {}),
    ("DDIMScheduler", {"beta_schedule": "squaredcos_cap_v2"}, 9, {}, {"eta": 1.0}),
    ("DDIMScheduler", {"trained_betas": [0.01 + 0.002 * i for i in range(40)], "num_train_timesteps": 40}, 8, {},
     {"eta": 0.5}),
    ("DDPMScheduler", {}, 20, {}, {}),
    ("DDPMScheduler", {"variance_type": "fixed_large", "clip_sample": False}, 10, {}, {}),
    ("DDPMScheduler", {"beta_schedule": "sigmoid", "prediction_type": "v_prediction"}, 1000, {}, {}),
    ("DDPMScheduler", {"variance_type": "fixed_small_log", "timestep_spacing": "linspace",
                       "prediction_type": "sample"}, 12, {}, {}),
    ("EulerDiscreteScheduler", {}, 10, {}, {}),
    ("EulerDiscreteScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1}, 30, {}, {}),
    ("EulerDiscreteScheduler", {**SD, **ZERO_SNR}, 15, {}, {}),
    ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True, "prediction_type": "sample"}, 12, {}, {}),
    ("EulerDiscreteScheduler", {**SD, "use_exponential_sigmas": True, "final_sigmas_type": "sigma_min"}, 9, {}, {}),
    ("EulerDiscreteScheduler", {**SD, "use_karras_sigmas": True, "sigma_min": 0.002, "sigma_max": 700.0,
                                "prediction_type": "v_prediction", "timestep_type": "continuous",
                                "timestep_spacing": "leading", "steps_offset": 1}, 25, {}, {}),
    ("EulerAncestralDiscreteScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1}, 12, {}, {}),
    ("EulerAncestralDiscreteScheduler", {**SD, **ZERO_SNR}, 7, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {}, 4, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}, 28, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"shift": 2.0, "use_karras_sigmas": True}, 9, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"invert_sigmas": True}, 8, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", {"stochastic_sampling": True}, 6, {}, {}),
    ("FlowMatchEulerDiscreteScheduler", DYNAMIC, 10, {"mu": 1.15}, {}),
    ("FlowMatchEulerDiscreteScheduler", {**DYNAMIC, "time_shift_type": "linear", "shift_terminal": 0.1}, 10,
     {"mu": 2.05}, {}),
    ("LCMScheduler", {}, 4, {}, {}),
    ("LCMScheduler", {"prediction_type": "v_prediction", "clip_sample": True}, 7, {}, {}),
    ("CMStochasticIterativeScheduler", {}, 1, {}, {}),
    ("CMStochasticIterativeScheduler", {"num_train_timesteps": 201, "s_noise": 0.9}, 6, {}, {}),
]

# Only their timesteps are taken over.
GRIDS = [
    ("PNDMScheduler", {**SD, "skip_prk_steps": True, "steps_offset": 1}, 20),
    ("HeunDiscreteScheduler", {"use_karras_sigmas": True}, 8),
    ("DPMSolverMultistepScheduler", {}, 10),
    ("DPMSolverMultistepScheduler", {**SD, "timestep_spacing": "leading", "steps_offset": 1}, 25),
    ("DPMSolverMultistepScheduler", {"timestep_spacing": "trailing", "use_karras_sigmas": True}, 14),
    ("UniPCMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
     30),
    ("DEISMultistepScheduler", {"timestep_spacing": "trailing"}, 13),
]


class Counted:
    def __init__(self):
        self.count = 0

    def draw(self, shape, **_):
        k = np.arange(self.count, self.count + LENGTH)
        self.count += LENGTH
        return torch.tensor((k * 7919 + 13) % 1009 / 504 - 1, dtype=torch.float32).reshape(shape)


def make(name, config):
    scheduler_class = getattr(diffusers, name)
    return scheduler_class(**config), importlib.import_module(scheduler_class.__module__)


def run(name, config, steps, how, step_options):
    scheduler, module = make(name, config)
    noise = Counted()
    module.randn_tensor = noise.draw
    if "mu" in how:  # what the pipelines that shift dynamically pass
        how = {**how, "sigmas": np.linspace(1.0, 1 / steps, steps)}
    scheduler.set_timesteps(steps, **how)
    scale = float(getattr(scheduler, "init_noise_sigma", 1.0))
    shape = (1, 1, 2, LENGTH // 2)
    sample = noise.draw(shape) * scale
    for t in scheduler.timesteps:
        scaled = scheduler.scale_model_input(sample, t) if hasattr(scheduler, "scale_model_input") else sample
        prediction = 0.4 * scaled + (WEIGHTS * float(t) / 1000).reshape(shape)
        sample = scheduler.step(prediction, t, sample, return_dict=False, **step_options)[0]
    return {
        "config": {"_class_name": name, **config},
        "steps": steps,
        "options": {key: value for key, value in {**how, **step_options}.items() if key != "sigmas"},
        "timesteps": [float(t) for t in scheduler.timesteps] if steps < 100 else None,
        "initialScale": scale,
        "sample": sample.flatten().tolist(),
    }


def grid(name, config, steps):
    scheduler, _ = make(name, config)
    scheduler.set_timesteps(steps)
    times = [float(t) for t in scheduler.timesteps]
    return {
        "config": {"_class_name": name, **config},
        "steps": steps,
        "timesteps": [t for i, t in enumerate(times) if i == 0 or t != times[i - 1]],
    }


print(json.dumps({"diffusers": diffusers.__version__, "runs": [run(*c) for c in CASES],
                  "grids": [grid(*g) for g in GRIDS]}))
