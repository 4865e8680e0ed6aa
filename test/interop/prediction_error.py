"""prediction_error.py [--psnr] MODEL_FOLDER [NATIVE]: what the rebuilt weights do to the model.

MODEL_FOLDER is one of the shared models. The tensors of NATIVE replace the initializers of its
ONNX graph (without NATIVE: the full-precision weights), the graph runs on the CPU with
onnxruntime, and one JSON document is printed: the prediction error per step and its mean, as the
models' README defines it, and with --psnr the PSNR of 20 DDIM steps.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from native_reader import read_native
from safetensors_file import list_entries

# The denoiser's folder in each of the shared pipelines.
COMPONENTS = ("transformer", "unet")


def load_source_weights(model: Path) -> dict[str, np.ndarray]:
    for component in COMPONENTS:
        path = model / component / "diffusion_pytorch_model.safetensors"
        if path.exists():
            return {entry.name: entry.read() for entry in list_entries([path])}
    raise FileNotFoundError(f"{model}: no {' or '.join(COMPONENTS)} folder")


def load_native_weights(native: str | Path) -> dict[str, np.ndarray]:
    return {tensor.name: tensor.values.astype(np.float32) for tensor in read_native(native)}


def as_initializer(weight: np.ndarray, entry: dict) -> np.ndarray:
    """The torch parameter as the graph holds it: as is, transposed, or [C] with trailing ones."""
    if entry["transposed"] is True:
        weight = weight.T
    if entry["transposed"] not in (True, False):
        weight = weight.reshape(entry["dims"])
    if list(weight.shape) != entry["dims"]:
        raise ValueError(f"{entry['torch_name']}: {weight.shape}, graph {entry['dims']}")
    return np.ascontiguousarray(weight, np.float32)


class Denoiser:
    """The ONNX graph of a shared model and its full-precision reference predictions."""

    def __init__(self, model: str | Path) -> None:
        self.model = Path(model)
        self.graph = onnx.load(self.model / "onnx" / "model.onnx")
        described = json.loads((self.model / "onnx" / "initializers.json").read_text())
        self.entries = {entry["initializer"]: entry for entry in described["initializers"]}
        reference = list_entries([self.model / "eval_reference.safetensors"])
        self.reference = {entry.name: entry.read() for entry in reference}

    def open_session(self, weights: dict[str, np.ndarray]) -> onnxruntime.InferenceSession:
        replaced = set()
        for initializer in self.graph.graph.initializer:
            entry = self.entries.get(initializer.name)
            if entry is None:
                continue
            array = as_initializer(weights[entry["torch_name"]], entry)
            initializer.CopyFrom(numpy_helper.from_array(array, initializer.name))
            replaced.add(entry["torch_name"])
        if replaced != set(weights):
            missing = sorted(set(weights) ^ replaced)
            raise ValueError(f"{self.model.name}: graph and weights differ in {missing[:5]}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = os.cpu_count() or 1
        return onnxruntime.InferenceSession(
            self.graph.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )

    def predict(
        self,
        session: onnxruntime.InferenceSession,
        sample: np.ndarray,
        timestep: int,
        labels: np.ndarray,
    ) -> np.ndarray:
        timesteps = np.full(len(sample), timestep, np.int64)
        inputs = {"sample": sample, "timestep": timesteps, "class_labels": labels}
        return session.run(["noise_pred"], inputs)[0]

    def prediction_errors(self, session: onnxruntime.InferenceSession) -> list[float]:
        """Per step, ‖p − step_pred‖ / ‖step_pred‖ over the step's whole batch."""
        errors = []
        for index, timestep in enumerate(self.reference["step_t"]):
            wanted = self.reference["step_pred"][index].astype(np.float64)
            predicted = self.predict(
                session,
                self.reference["step_x_t"][index],
                int(timestep),
                self.reference["step_class_labels"],
            )
            errors.append(float(np.linalg.norm(predicted - wanted) / np.linalg.norm(wanted)))
        return errors

    def ddim_psnr(self, session: onnxruntime.InferenceSession) -> float:
        """PSNR of 20 DDIM steps (eta 0) from x_T against `ddim20`: dB, peak to peak 2, mean over
        the images (which is what reproduces the README's figures)."""
        alphas = self.reference["alphas_cumprod"].astype(np.float64)
        timesteps = [int(timestep) for timestep in self.reference["ddim20_timesteps"]]
        sample = self.reference["x_T"]
        for timestep, previous in zip(timesteps, timesteps[1:] + [None]):
            noise = self.predict(session, sample, timestep, self.reference["class_labels"])
            alpha = alphas[timestep]
            alpha_previous = 1.0 if previous is None else alphas[previous]
            clean = (sample - np.sqrt(1 - alpha) * noise) / np.sqrt(alpha)
            clean = np.clip(clean, -1, 1)
            sample = np.sqrt(alpha_previous) * clean + np.sqrt(1 - alpha_previous) * noise
            sample = sample.astype(np.float32)
        squared = (sample.astype(np.float64) - self.reference["ddim20"]) ** 2
        errors = squared.reshape(len(sample), -1).mean(axis=1)
        errors = np.maximum(errors, np.finfo(np.float64).tiny)  # an equal image: no infinity
        return float(np.mean(10 * np.log10(4 / errors)))


def measure(denoiser: Denoiser, weights: dict[str, np.ndarray], psnr: bool) -> dict:
    session = denoiser.open_session(weights)
    errors = denoiser.prediction_errors(session)
    result = {
        "model": denoiser.model.name,
        "step_t": denoiser.reference["step_t"].tolist(),
        "prediction_errors": errors,
        "prediction_error": float(np.mean(errors)),
    }
    if psnr:
        result["ddim20_psnr_db"] = denoiser.ddim_psnr(session)
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("model", help="folder of a shared model")
    parser.add_argument("native", nargs="*", help="native files; none: the full-precision weights")
    parser.add_argument("--psnr", action="store_true", help="also run 20 DDIM steps")
    args = parser.parse_args()
    denoiser = Denoiser(args.model)
    results = []
    for native in args.native or [None]:
        if native is None:
            weights = load_source_weights(denoiser.model)
        else:
            weights = load_native_weights(native)
        results.append({"native": native, **measure(denoiser, weights, args.psnr)})
    json.dump({"results": results}, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
