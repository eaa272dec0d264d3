/* Characters: the four classes that split rules ask for, and the byte-level alphabet. */
#include "tokenizer/tokenizer.h"

#include <utf8proc.h>

#define O LSI_CHAR_OTHER
#define L LSI_CHAR_LETTER
#define N LSI_CHAR_NUMBER
#define S LSI_CHAR_SPACE
static const unsigned char ascii_class[128] = {
    O, O, O, O, O, O, O, O, O, S, S, S, S, S, O, O, /* 00 */
    O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 10 */
    S, O, O, O, O, O, O, O, O, O, O, O, O, O, O, O, /* 20 */
    N, N, N, N, N, N, N, N, N, N, O, O, O, O, O, O, /* 30 */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* 40 */
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 50 */
    O, L, L, L, L, L, L, L, L, L, L, L, L, L, L, L, /* 60 */
    L, L, L, L, L, L, L, L, L, L, L, O, O, O, O, O, /* 70 */
};
#undef O
#undef L
#undef N
#undef S

/* White_Space beyond ASCII. A list, because U+180E belongs to some regex engines' \s but not to it. */
static bool is_wide_space(uint32_t cp)
{
    return cp == 0x85 || cp == 0xa0 || cp == 0x1680 || (cp >= 0x2000 && cp <= 0x200a) || cp == 0x2028 ||
           cp == 0x2029 || cp == 0x202f || cp == 0x205f || cp == 0x3000;
}

enum lsi_char_class lsi_char_class_of(uint32_t cp)
{
    if (cp < 128)
        return (enum lsi_char_class)ascii_class[cp];
    if (cp >= 0x4e00 && cp <= 0x9fff) /* CJK ideographs: most of a Chinese text */
        return utf8proc_category((utf8proc_int32_t)cp) == UTF8PROC_CATEGORY_LO ? LSI_CHAR_LETTER
                                                                               : LSI_CHAR_OTHER;
    if (is_wide_space(cp))
        return LSI_CHAR_SPACE;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
        return LSI_CHAR_LETTER;
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_NO:
        return LSI_CHAR_NUMBER;
    default:
        return LSI_CHAR_OTHER;
    }
}

bool lsi_char_is_word(uint32_t cp)
{
    const enum lsi_char_class c = lsi_char_class_of(cp);
    if (c == LSI_CHAR_LETTER || c == LSI_CHAR_NUMBER)
        return true;
    switch (utf8proc_category((utf8proc_int32_t)cp)) {
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_PC:
        return true;
    default:
        return false;
    }
}

uint32_t lsi_char_lower(uint32_t cp)
{
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)cp);
}

size_t lsi_char_at(const char *s, size_t n, uint32_t *cp)
{
    const size_t len = lsi_utf8_decode(s, n, cp);
    if (len)
        return len;
    *cp = 0xfffd;
    return 1;
}

uint32_t lsi_byte_letter(unsigned char byte)
{
    if (byte <= 0x20)
        return 0x100u + byte;
    if (byte >= 0x7f && byte <= 0xa0)
        return 0x121u + (byte - 0x7fu);
    return byte == 0xad ? 0x143u : byte;
}

int lsi_letter_byte(uint32_t cp)
{
    if ((cp >= 0x21 && cp <= 0x7e) || (cp >= 0xa1 && cp <= 0xac) || (cp >= 0xae && cp <= 0xff))
        return (int)cp;
    if (cp >= 0x100 && cp <= 0x120)
        return (int)(cp - 0x100);
    if (cp >= 0x121 && cp <= 0x142)
        return (int)(cp - 0x121 + 0x7f);
    return cp == 0x143 ? 0xad : -1;
}
