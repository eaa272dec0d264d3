#!/usr/bin/env python3
"""Write tests/data/adapters/smollm2: a random LoRA adapter for the tiny model, by PEFT, and print the ids that
tests/cli/cases/merge.t expects of it."""

import json
import os

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

import golden


def main():
    base = os.path.join(golden.ROOT, "tests/data/models/smollm2")
    out = os.path.join(golden.ROOT, "tests/data/adapters/smollm2")

    def load():
        return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)

    torch.manual_seed(7)
    config = LoraConfig(r=2, lora_alpha=3, target_modules=["q_proj", "k_proj", "down_proj"],
                        init_lora_weights=False, task_type="CAUSAL_LM")
    get_peft_model(load(), config).save_pretrained(out)
    os.remove(os.path.join(out, "README.md"))
    path = os.path.join(out, "adapter_config.json")
    with open(path, encoding="utf-8") as f:
        fields = json.load(f)
    fields["base_model_name_or_path"] = "smollm2"  # not this machine's
    with open(path, "w", encoding="utf-8") as f:
        json.dump(fields, f, indent=2)
        f.write("\n")
    os.chmod(os.path.join(out, "adapter_model.safetensors"), 0o644)

    model = PeftModel.from_pretrained(load(), out).eval()
    ids = AutoTokenizer.from_pretrained(base)("Hello there", return_tensors="pt").input_ids
    print(model.generate(input_ids=ids, max_new_tokens=8, do_sample=False)[0, ids.shape[1]:].tolist())


if __name__ == "__main__":
    main()
