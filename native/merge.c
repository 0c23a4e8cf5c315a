/*
 * Compares the text of a table with what the last scan left. The rule: a row is decoded only when its text is not the
 * one expected here; and what is left out of the comparison is `sl`, the row's number, and `when`, the time left.
 *
 * The kernel walks its hash in a stable order, so row after row the text kept of the entry that followed last time is
 * compared, eight bytes at once. Everything up to the inode counts: both ends, state, queues, the kind of timer,
 * retransmits, uid, probes and inode. Offsets count from the space after the colon of `sl` (get_tcp4_sock):
 *
 *      0         9    15        24   29 32       41       50 53       61       70   76       85
 *      | 0100007F:1538 0100007F:9C40 01 00000000:00000000 02:000AFC80 00000000   101        0 4026531840 1 ...
 *
 * In tcp6 each address is 24 digits longer, which moves all that follows.
 */
#include "procnet.h"

#if defined(__SSE2__) && !defined(PGS_PORTABLE)
#include <emmintrin.h>
#endif

enum {
    TAIL = 61,           /* the space before `retrnsmt` */
    MASKED = 85,         /* the space before the inode, where the masked block begins */
    KEPT = MASKED + 16,
    LONGER6 = 48,
    BLOCKS4 = 7,
    BLOCKS6 = 10,
    SHORTEST6 = 128      /* bytes of a line of tcp6 that hold no newline: its inode begins later */
};

/* Where the blocks of 16 bytes begin that are kept of a row. Together they cover all but `when`; the last is masked. */
static const int blocks4[BLOCKS4] = {0, 16, 32, 37, TAIL, TAIL + 8, MASKED};
static const int blocks6[BLOCKS6] = {0, 16, 32, 48, 64, 80, 85, LONGER6 + TAIL, LONGER6 + TAIL + 8, LONGER6 + MASKED};

_Static_assert(16 * BLOCKS6 == PGS_RAW, "a row of tcp6 is kept up to its inode");
_Static_assert(12 + KEPT < PGS_PADDED, "a padded line is long enough to be compared");

/* Whether an entry was read from this text. `longer` is a constant: 0, or LONGER6. */
static inline __attribute__((always_inline)) int is_as_it_was(const pgs_entry *entry, const char *sides,
                                                              const int longer)
{
    const int count = longer ? BLOCKS6 : BLOCKS4, *const blocks = longer ? blocks6 : blocks4;
#if defined(__SSE2__) && !defined(PGS_PORTABLE)
    const __m128i *const kept = (const __m128i *)(const void *)entry->raw; /* aligned */
    __m128i differs = _mm_setzero_si128();
#pragma GCC unroll 10
    for (int i = 0; i < count; i++) {
        __m128i block = _mm_xor_si128(_mm_loadu_si128((const __m128i *)(const void *)(sides + blocks[i])), kept[i]);
        if (i == count - 1)
            block = _mm_and_si128(block, *(const __m128i *)(const void *)entry->mask);
        differs = _mm_or_si128(differs, block);
    }
    return _mm_movemask_epi8(_mm_cmpeq_epi8(differs, _mm_setzero_si128())) == 0xffff;
#else
    uint64_t differs = 0, text[2], kept[2], mask[2];
#pragma GCC unroll 10
    for (int i = 0; i < count; i++) {
        memcpy(text, sides + blocks[i], sizeof text);
        memcpy(kept, entry->raw + 16 * i, sizeof kept);
        text[0] ^= kept[0];
        text[1] ^= kept[1];
        if (i == count - 1) {
            memcpy(mask, entry->mask, sizeof mask);
            text[0] &= mask[0];
            text[1] &= mask[1];
        }
        differs |= text[0] | text[1];
    }
    return !differs;
#endif
}

/* Keeps the text of a row for the next scan; one of unusual width is decoded every time. */
static void keep_text(pgs_entry *entry, const char *sides, const char *end, int longer)
{
    const int count = longer ? BLOCKS6 : BLOCKS4, *const blocks = longer ? blocks6 : blocks4;
    const char *at = sides + longer + TAIL;
    entry->raw[0] = 0;
    if (end - sides < longer + KEPT || *at != ' ')
        return;
    at += 9;
    for (int column = 0; column < 3; column++) { /* uid, probes, inode */
        while (at < end && *at == ' ')
            at++;
        while (at < end && *at >= '0' && *at <= '9')
            at++;
    }
    const int64_t length = at + 1 - (sides + longer + MASKED); /* with what ends the inode */
    if (length < 2 || length > KEPT - MASKED)
        return;
    memset(entry->mask, 0, sizeof entry->mask);
    memset(entry->mask, 0xff, (size_t)length);
    for (int i = 0; i < count; i++)
        memcpy(entry->raw + 16 * i, sides + blocks[i], 16);
}

/* Decodes one line and meets its row. */
static int meet_line(pgs_table *table, const char *line, const char *end, int family, const pgs_port_texts *wanted,
                     pgs_text_counts *counts)
{
    pgs_row row;
    pgs_entry *entry = NULL;
    enum pgs_line kind = pgs_parse_line(line, end, family, wanted, &row);
    counts->skipped += kind == PGS_LINE_SKIPPED;
    counts->malformed += kind == PGS_LINE_MALFORMED;
    if (kind != PGS_LINE_ROW)
        return PGS_OK;
    counts->rows++;
    int code = pgs_table_meet(table, &row, &entry);
    if (code == PGS_SAME)
        keep_text(entry, (const char *)memchr(line, ':', (size_t)(end - line)) + 1, end, family == 6 ? LONGER6 : 0);
    return code < 0 ? code : PGS_OK;
}

/* Passes over rows of no interest and rows that stand as they stood, and counts them; returns the first line that needs
 * more than that, or the first incomplete one. Most rows go this way: what does not change in between is kept in local
 * variables, which the compiler could not do by itself. */
static inline __attribute__((always_inline)) const char *pass_lines(pgs_table *table, const char *line,
                                                                    const char *end, const int colon, const int longer,
                                                                    const pgs_port_texts *wanted,
                                                                    pgs_text_counts *counts)
{
    const int port = longer / 2 + 10, remote_port = longer + 24;
    const char *const begin = line, *const last = end - (longer ? SHORTEST6 : PGS_PADDED);
    const uint32_t first_port = wanted->texts[0];
    const int has_one_port = wanted->count == 1 && !wanted->remote_too, is_reordered = table->is_reordered;
    const uint64_t scan = table->scan;
    const uint32_t *const order = table->order, *const first = order + table->cursor, *expected = first;
    const uint32_t *const order_end = order + table->order_count;
    uint32_t skipped = 0;
    while (line <= last && line[colon] == ':') {
        const char *const sides = line + colon + 1;
        const char *newline = line + PGS_PADDED - 1;
        if (longer ? !(newline = memchr(line + SHORTEST6, '\n', (size_t)(end - line - SHORTEST6))) : *newline != '\n')
            break;
        if (pgs_load4(sides + port) != first_port &&
            (has_one_port || !pgs_is_wanted(wanted, sides + port, sides + remote_port))) {
            skipped += !!longer;
            line = newline + 1;
            continue;
        }
        if (expected == order_end)
            break;
        pgs_entry *entry = &table->entries[*expected];
        if (entry->scan == scan || !is_as_it_was(entry, sides, longer))
            break;
        entry->scan = scan;
        if (is_reordered)
            pgs_table_place(table, entry, *expected);
        expected++;
        line = newline + 1;
    }
    const uint32_t passed = (uint32_t)(expected - first);
    table->cursor += passed;
    table->seen += passed;
    counts->rows += passed;
    counts->skipped += longer ? skipped : (uint32_t)(line - begin) / PGS_PADDED - passed;
    return line;
}

/* One copy a family, each with the registers to itself. */
static __attribute__((noinline)) const char *pass_lines4(pgs_table *table, const char *line, const char *end, int colon,
                                                         const pgs_port_texts *wanted, pgs_text_counts *counts)
{
    return pass_lines(table, line, end, colon, 0, wanted, counts);
}

static __attribute__((noinline)) const char *pass_lines6(pgs_table *table, const char *line, const char *end, int colon,
                                                         const pgs_port_texts *wanted, pgs_text_counts *counts)
{
    return pass_lines(table, line, end, colon, LONGER6, wanted, counts);
}

int64_t pgs_merge_text(pgs_table *table, const char *text, uint64_t length, int family, int is_kernels,
                       const pgs_port_texts *wanted, pgs_text_counts *counts)
{
    const char *line = text, *const end = text + length;
    int colon = 4; /* `%4d:` widens at 10000 rows */
    while (line < end) {
        if (is_kernels && family == 4)
            line = pass_lines4(table, line, end, colon, wanted, counts);
        else if (is_kernels)
            line = pass_lines6(table, line, end, colon, wanted, counts);
        const char *newline = line < end ? memchr(line, '\n', (size_t)(end - line)) : NULL;
        if (!newline)
            break;
        const char *found = memchr(line, ':', (size_t)(newline - line));
        if (found && found - line < 12)
            colon = (int)(found - line);
        int code = meet_line(table, line, newline, family, wanted, counts);
        if (code != PGS_OK)
            return code;
        line = newline + 1;
    }
    return line - text;
}
