"""Render conversations with published chat templates, for the tests of the library's own rendering.

Run by hand:  python scripts/make-golden/chat_renderings.py NAME=TEMPLATE.jinja...
NAME is the library's name for the template. Writes tests/unit/tokenizer/data/chat.txt: the conversations, then for
each name what its template makes of them. Line feeds, tabs and backslashes are escaped. Conversations that a template
refuses are left out. The templates themselves are not kept.
"""

import pathlib
import sys

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/unit/tokenizer/data/chat.txt"

SYSTEM = ("system", " Be brief. ")
TURNS = [
    ("user", "  What is 2+2?\n"), ("assistant", "<think>\nsum\n</think>\n\n It is 4. "), ("user", "And\n 3+3?"),
    ("assistant", "\n\tSix.\n"), ("user", "Thanks <b>"),
]
CONVERSATIONS = [front + TURNS[:n] for front in ([], [SYSTEM]) for n in (1, 2, 3, 4, 5)]


def refuse(message):
    raise jinja2.TemplateError(message)


def escape(text):
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")


def main():
    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    env.globals["raise_exception"] = refuse
    lines = [f"# jinja2 {jinja2.__version__}, bos <s>, eos </s>"]
    for conversation in CONVERSATIONS:
        lines.append("\t".join(["conversation"] + [escape(part) for message in conversation for part in message]))
    for arg in sys.argv[1:]:
        name, path = arg.split("=", 1)
        template = env.from_string(pathlib.Path(path).read_text(encoding="utf-8"))
        for i, conversation in enumerate(CONVERSATIONS):
            messages = [{"role": role, "content": content} for role, content in conversation]
            prompt = messages[-1]["role"] == "user"
            try:
                text = template.render(messages=messages, add_generation_prompt=prompt, bos_token="<s>",
                                       eos_token="</s>")
            except jinja2.TemplateError:
                continue
            lines.append("\t".join([name, str(i), str(int(prompt)), escape(text)]))
    OUT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
