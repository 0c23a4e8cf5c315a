/*
 * libFuzzer entry for pgs_parse(). The first byte of the input chooses family, ports, capacity and where the text is
 * cut; the rest is the text, copied so that one byte too far is seen by AddressSanitizer.
 */
#include "rows.h"

enum { CAPACITY = 512 };

static const uint16_t ports[] = {5432, 6432};

static pgs_parse_result parse(const char *text, size_t length, uint8_t choice, pgs_row *out, uint32_t capacity)
{
    pgs_parse_result result;
    pgs_parse(text, length, choice & 1 ? 6 : 4, ports, choice >> 1 & 2, choice >> 3 & 1, out, capacity, &result);
    CHECK(result.consumed <= length);
    CHECK(result.consumed == 0 || text[result.consumed - 1] == '\n');
    CHECK(result.rows <= capacity);
    return result;
}

/* Lines, and those of them that are headers. */
static void count_lines(const char *text, size_t length, uint32_t *lines, uint32_t *headers)
{
    static const char header[] = "  sl  local_address";
    *lines = *headers = 0;
    for (const char *line = text, *end = text + length; line < end; ++*lines) {
        const char *newline = memchr(line, '\n', (size_t)(end - line));
        if (!newline)
            break;
        size_t size = (size_t)(newline - line);
        *headers += size >= sizeof header - 1 && size < PGS_MAX_ROW_TEXT && !memcmp(line, header, sizeof header - 1);
        line = newline + 1;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static pgs_row whole[CAPACITY], parts[CAPACITY];
    uint32_t lines, headers;
    if (size < 1)
        return 0;
    size_t length = size - 1;
    char *text = malloc(length + !length);
    memcpy(text, input + 1, length);
    memset(whole, 0, sizeof whole);
    memset(parts, 0, sizeof parts);

    pgs_parse_result result = parse(text, length, input[0], whole, CAPACITY);
    count_lines(text, result.consumed, &lines, &headers);
    CHECK(result.lines == lines);
    CHECK(result.rows + result.skipped + result.malformed + headers == lines);
    for (uint32_t i = 0; i < result.rows; i++)
        CHECK(whole[i].state >= PGS_ESTABLISHED && whole[i].state <= PGS_CLOSING && whole[i].reserved == 0);

    /* Any number of pieces, each as far as it was consumed, and any capacity give the same rows. */
    size_t done = 0, step = 1 + (input[0] >> 4) * 37u, given = step;
    uint32_t rows = 0, skipped = 0, malformed = 0;
    while (done < result.consumed) {
        given = given < length ? given : length;
        pgs_parse_result part = parse(text + done, given - done, input[0], parts + rows, rows < result.rows ? 1 : 0);
        rows += part.rows;
        skipped += part.skipped;
        malformed += part.malformed;
        done += part.consumed;
        given += part.consumed ? 0 : step;
    }
    CHECK(rows == result.rows && skipped == result.skipped && malformed == result.malformed);
    CHECK(memcmp(whole, parts, rows * sizeof *whole) == 0);
    free(text);
    return 0;
}
