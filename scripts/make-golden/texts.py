"""Texts of the golden cases."""

CHAT = ["What is the capital of France?", "Name three colours.", "What is 2 + 2?"]

GENERATE = ["The capital of France is", "Once upon a time, there was a", "def fibonacci(n):\n"]

# RULER's single needle: a line in the middle of a text, asked for with the answer's beginning given.
NEEDLES = [
    dict(city="Lisbon", number=52814, passage="gen1:1-gen50:26", chars=4000, share=0.35),
    dict(city="Lisbon", number=52814, passage="gen1:1-gen50:26", chars=8000, share=0.6),
    dict(city="Oslo", number=91735, passage="exo1:1-exo40:38", chars=8000, share=0.2),
    dict(city="Nairobi", number=40268, passage="psa1:1-psa80:19", chars=15500, share=0.45),
]


def needle_prompt(text, n):
    """The first n["chars"] characters with the needle's line at the line break after n["share"] of them."""
    text = text[:n["chars"]]
    at = text.index("\n", int(n["share"] * n["chars"])) + 1
    line = "One of the special magic numbers for %s is: %d.\n" % (n["city"], n["number"])
    return (
        "Some special magic numbers are hidden within the following text.\n"
        + text[:at] + line + text[at:]
        + "\nWhat is the special magic number for %s mentioned in the provided text? " % n["city"]
        + "The special magic number for %s mentioned in the provided text is:" % n["city"]
    )


TRICKY = [
    "",
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\n\n\n",
    "\t",
    "\t\t x",
    " \n \n",
    "\r\n",
    "a\r\nb",
    "Hello",
    " Hello",
    "  Hello",
    "Hello ",
    "Hello  ",
    "Hello world",
    "Hello, world!",
    "hello\nworld\n",
    "HELLO WORLD",
    "I'm you're it's we've they'll he'd don't",
    "I'M YOU'RE IT'S WE'VE THEY'LL HE'D DON'T",
    "it\u2019s",
    "0",
    "12",
    "123",
    "1234567890",
    "3.14159 and 1,000,000.00",
    "2026-11-22T07:30:00Z",
    "\u00bd \u00b2 \u0663\u0664\u0665 \u2167",
    "a1b2c3",
    "x=y+z; if (a && b) { return -1; }",
    "    indented\n\tby tab\n        by eight",
    "for (int i = 0; i < n; i++) {\n    sum += a[i];\n}\n",
    "https://example.org/path?q=1&r=2#frag",
    "user@example.org",
    "C:\\dir\\file.txt",
    "<|im_start|>user",
    "<|im_end|>",
    "<bos><eos><start_of_turn>",
    "<|endoftext|>",
    "[INST] <<SYS>> </s> <s>",
    "caf\u00e9 na\u00efve \u00fcber stra\u00dfe",
    "cafe\u0301 nai\u0308ve",
    "\u041f\u0440\u0438\u0432\u0435\u0442, \u043c\u0438\u0440!",
    "\u4f60\u597d\uff0c\u4e16\u754c\u3002",
    "\u4eca\u65e5\u306f\u4e16\u754c\u3001\u30ab\u30bf\u30ab\u30ca",
    "\uc548\ub155\ud558\uc138\uc694 \uc138\uacc4",
    "\u0645\u0631\u062d\u0628\u0627 \u0628\u0627\u0644\u0639\u0627\u0644\u0645",
    "\u0928\u092e\u0938\u094d\u0924\u0947 \u0926\u0941\u0928\u093f\u092f\u093e",
    "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35\u0e0a\u0e32\u0e27\u0e42\u0e25\u0e01",
    "\U0001f600",
    "\U0001f600\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "\U0001f1eb\U0001f1f7 \U0001f44d\U0001f3fd",
    "\U0001d4d0\U00010348\U00020000",
    "zero\u200bwidth\u200djoin\ufeffbom",
    "\u00a0no-break\u2003em\u3000ideographic",
    "\u2581lower one eighth",
    "\u0000nul inside\u0000",
    "\u0001\u0002\u007f",
    "!!!???...---___***",
    "wow!!! so... many---marks",
    "\"quoted\" 'single' `code` \u201ccurly\u201d",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "                                                                x",
    "Pneumonoultramicroscopicsilicovolcanoconiosis",
    "CamelCaseAndsnake_case_and-kebab-case",
    "e = mc\u00b2, \u222b f(x) dx \u2264 \u221e, \u03b1\u03b2\u03b3",
    "| a | b |\n|---|---|\n| 1 | 2 |\n",
    "# Title\n\n* item\n* item\n\n```c\nint x;\n```\n",
    "\u01c5 \u0130stanbul \u1e9e \ufb01",
    "end of line \n next",
    "trailing newline\n ",
]
