/* The page on --kv, from the library's own tables. */
#include <string.h>

#include "cli_options.h"

enum {
    NAME_COLUMN = 14, /* where what a policy is begins */
    KEY_COLUMN = 28,
};

static void print_key(const ls_kv_key_info *key)
{
    const char *values = key->choices ? key->choices : key->percent ? "N or P%" : "N";
    struct text left = { 0 }, right = { 0 };

    text_printf(&left, "    %s=%s", key->name, values);
    fputs(left.data, stdout);
    if (left.len + 2 > KEY_COLUMN)
        printf("\n%*s", KEY_COLUMN, "");
    else
        printf("%*s", (int)(KEY_COLUMN - left.len), "");
    text_puts(&right, key->help);
    if (key->normal)
        text_printf(&right, " (default: %s)", key->normal);
    help_wrapped(right.data, KEY_COLUMN, KEY_COLUMN);
    text_free(&left);
    text_free(&right);
}

static void print_policy(size_t i, const ls_kv_policy_info *p)
{
    printf("\n  %-*s", NAME_COLUMN - 2, p->name);
    help_wrapped(p->summary, NAME_COLUMN, NAME_COLUMN);
    for (size_t k = 0; k < p->n_keys; k++) {
        ls_kv_key_info key = { .struct_size = sizeof key };
        if (ls_kv_key_at(i, k, &key))
            print_key(&key);
    }
    if (p->example)
        printf("    e.g. --kv %s\n", p->example);
}

/* Which policies store packed what they keep. */
static void print_packing(void)
{
    struct text names = { 0 };
    ls_kv_policy_info p = { .struct_size = sizeof p };

    for (size_t i = 0; ls_kv_policy_at(i, &p); i++)
        if (p.packs)
            text_printf(&names, "%s%s", names.len ? ", " : "", p.name);
    text_puts(
        &names,
        " compose with kivi: the policy says which tokens are kept or read, and +kivi behind it, with the "
        "keys of kivi, stores them in 2, 4 or 8 bits, but for the last ones.");
    putchar('\n');
    help_wrapped(names.data, 0, 0);
    puts("    e.g. --kv quest:budget=10%+kivi:bits=4");
    text_free(&names);
}

void help_kv(void)
{
    ls_kv_policy_info p = { .struct_size = sizeof p };

    puts("longspan help kv: how keys and values of past tokens are kept\n\n"
         "Usage:\n"
         "  --kv NAME\n"
         "  --kv NAME:item,item...     items: key=value, or a precision\n"
         "  --kv NAME:item,item...+kivi:item,item...\n\n"
         "Precisions of keys and values: bf16 (default), q8 (8 bits, and a scale for 32 of them), fp32.\n");
    help_wrapped(
        "A number of tokens that may be a share is written 10% then: 10 % of the tokens of the first prompt, "
        "rounded down, at least 1. Later prompts do not change it.",
        0, 0);
    for (size_t i = 0; ls_kv_policy_at(i, &p); i++)
        print_policy(i, &p);
    print_packing();
}
