/* pgs_parse(): the text stands at the very end of a page whose successor cannot be read, so one byte too far crashes.
 * */
#include <sys/mman.h>
#include <unistd.h>

#include "rows.h"

enum { PAGES = 16 };

static char *wall; /* the first byte that cannot be read */

static void build_wall(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    char *memory = mmap(NULL, (PAGES + 1) * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    wall = memory + PAGES * page;
    CHECK(mprotect(wall, page, PROT_NONE) == 0);
}

static pgs_parse_result parse(const char *text, size_t length, int family, pgs_row *out, uint32_t capacity)
{
    pgs_parse_result result;
    char *at = memcpy(wall - length, text, length);
    pgs_parse(at, length, family, NULL, 0, 0, out, capacity, &result);
    return result;
}

static pgs_parse_result parse_line(const char *line, int family, pgs_row *out)
{
    return parse(line, strlen(line), family, out, 1);
}

static void check_same(const pgs_row *expected, const pgs_row *got)
{
    CHECK(memcmp(expected->local_address, got->local_address, 16) == 0);
    CHECK(memcmp(expected->remote_address, got->remote_address, 16) == 0);
    CHECK(expected->local_port == got->local_port);
    CHECK(expected->remote_port == got->remote_port);
    CHECK(expected->state == got->state);
    CHECK(expected->timer == got->timer);
    CHECK(expected->family == got->family);
    CHECK(got->reserved == 0);
    CHECK(expected->tx_queue == got->tx_queue);
    CHECK(expected->rx_queue == got->rx_queue);
    CHECK(expected->retransmits == got->retransmits);
    CHECK(expected->probes == got->probes);
    CHECK(expected->uid == got->uid);
    CHECK(expected->inode == got->inode);
}

/* Rows of every shape; returns how many. */
static int make_rows(int family, pgs_row *rows)
{
    const char *local = family == 6 ? "2001:db8::1:2:3" : "10.1.2.3";
    const char *remote = family == 6 ? "fe80::aabb:ccdd" : "192.168.77.5";
    int count = 0;
    rows[count] = make_row(family, local, 5432, remote, 40000, PGS_ESTABLISHED, 4026531840u);
    rows[count].tx_queue = 0x3D0900;
    rows[count].rx_queue = 52;
    rows[count].retransmits = 9;
    rows[count].probes = 7;
    rows[count++].timer = 4;
    rows[count++] = make_row(family, local, 5432, remote, 40001, PGS_TIME_WAIT, 0);
    rows[count++] = make_row(family, local, 5432, remote, 40002, PGS_SYN_RECV, 0);
    rows[count++] = make_row(family, local, 65535, remote, 1, PGS_LISTEN, UINT64_MAX);
    rows[count] = make_row(family, local, 9999, remote, 0x5432, PGS_CLOSING, 11);
    rows[count++].uid = UINT32_MAX;
    if (family == 6)
        rows[count++] = make_row(6, "::ffff:10.0.0.1", 5432, "::ffff:10.0.0.2", 33000, PGS_CLOSE_WAIT, 12);
    return count;
}

static size_t write_table(char *text, int family, const pgs_row *rows, int count)
{
    static const int numbers[] = {0, 9, 9998, 9999, 10000, 1000000};
    char *to = write_header(text, family);
    for (int i = 0; i < count; i++)
        to = write_row(to, numbers[i], &rows[i]);
    return (size_t)(to - text);
}

static void every_field_is_read(int family)
{
    char text[8192];
    pgs_row rows[16], got[16];
    int count = make_rows(family, rows);
    size_t length = write_table(text, family, rows, count);
    pgs_parse_result result = parse(text, length, family, got, 16);
    CHECK(result.rows == (uint32_t)count && result.lines == (uint32_t)count + 1);
    CHECK(result.malformed == 0 && result.skipped == 0 && result.consumed == length);
    for (int i = 0; i < count; i++)
        check_same(&rows[i], &got[i]);
}

static void every_truncation_gives_the_complete_lines(int family)
{
    char text[8192];
    pgs_row rows[16], got[16];
    size_t length = write_table(text, family, rows, make_rows(family, rows));
    for (size_t cut = 0; cut <= length; cut++) {
        uint32_t lines = 0;
        size_t complete = 0;
        for (size_t i = 0; i < cut; i++)
            if (text[i] == '\n') {
                lines++;
                complete = i + 1;
            }
        pgs_parse_result result = parse(text, cut, family, got, 16);
        CHECK(result.consumed == complete && result.lines == lines && result.malformed == 0);
        CHECK(result.rows == (lines ? lines - 1 : 0));
        for (uint32_t i = 0; i < result.rows; i++)
            check_same(&rows[i], &got[i]);
    }
}

/* A line that ends early is whole up to the inode, or it is no row; it is never read past its end. */
static void every_shortened_line_is_a_row_or_malformed(int family)
{
    char text[512], *inode_end;
    pgs_row rows[16], got;
    make_rows(family, rows);
    size_t length = (size_t)(write_row(text, 0, &rows[0]) - text);
    inode_end = strstr(text, "4026531840") + strlen("4026531840");
    for (size_t cut = 0; cut < length; cut++) {
        char line[512];
        memcpy(line, text, cut);
        line[cut] = '\n';
        pgs_parse_result result = parse(line, cut + 1, family, &got, 1);
        CHECK(result.lines == 1 && result.rows + result.malformed == 1);
        if (text + cut >= inode_end)
            CHECK(result.rows == 1 && got.inode == 4026531840u);
        if (text + cut < inode_end - 10)
            CHECK(result.malformed == 1);
    }
}

static void a_broken_byte_before_the_inode_is_malformed(int family)
{
    char text[512];
    pgs_row rows[16], got;
    make_rows(family, rows);
    size_t length = (size_t)(write_row(text, 0, &rows[0]) - text);
    size_t inode = (size_t)(strstr(text, "4026531840") - text);
    for (size_t i = 6; i < inode + 10; i++) {
        char before = text[i];
        text[i] = 'x';
        pgs_parse_result result = parse(text, length, family, &got, 1);
        CHECK(result.malformed == 1 && result.rows == 0);
        text[i] = before;
    }
}

static void a_full_output_stops_before_the_next_row_and_goes_on_later(int family)
{
    char text[8192];
    pgs_row rows[16], got;
    int count = make_rows(family, rows);
    size_t length = write_table(text, family, rows, count), done = 0;
    for (int i = 0; i < count; i++) {
        pgs_parse_result result = parse(text + done, length - done, family, &got, 1);
        CHECK(result.rows == 1);
        check_same(&rows[i], &got);
        done += result.consumed;
    }
    CHECK(done == length);
    CHECK(parse(text, length, family, NULL, 0).consumed == strcspn(text, "\n") + 1);
}

static void ports_choose_rows(int family)
{
    char text[8192];
    pgs_row rows[16], got[16];
    pgs_parse_result result;
    int count = make_rows(family, rows);
    size_t length = write_table(text, family, rows, count);
    uint16_t local[] = {1, 65535}, remote[] = {40001}, many[PGS_MAX_PORTS + 1] = {0};
    pgs_parse(text, length, family, local, 2, 0, got, 16, &result);
    CHECK(result.rows == 1 && got[0].local_port == 65535 && result.skipped == (uint32_t)count - 1);
    pgs_parse(text, length, family, remote, 1, 0, got, 16, &result);
    CHECK(result.rows == 0 && result.skipped == (uint32_t)count);
    pgs_parse(text, length, family, remote, 1, 1, got, 16, &result);
    CHECK(result.rows == 1 && got[0].remote_port == 40001);
    many[PGS_MAX_PORTS] = 5432;
    pgs_parse(text, length, family, many, PGS_MAX_PORTS + 1, 0, got, 16, &result);
    CHECK(result.rows == 0);
    many[PGS_MAX_PORTS - 1] = 5432;
    pgs_parse(text, length, family, many, PGS_MAX_PORTS, 0, got, 16, &result);
    CHECK(result.rows >= 3);
}

#define LINE(state, ticks, tail) \
    "   0: 0100007F:1538 0100007F:9C40 " state " 00000000:00000000 02:" ticks " 00000000" tail "\n"

static void malformed_lines_are_counted(void)
{
    static const char *const lines[] = {
        "\n",
        "x\n",
        "   0: 0100007F:1538\n",
        LINE("00", "000AFC80", "   101        0 7"),                    /* no such state */
        LINE("0D", "000AFC80", "   101        0 7"),
        LINE("0a", "000AFC80", "   101        0 7"),                    /* the kernel prints upper case */
        LINE("01", "000AFC8", "   101        0 7"),
        LINE("01", "00000000000AFC801", "   101        0 7"),           /* 17 digits */
        LINE("01", "000AFC80", "   4294967296        0 7"),             /* above 32 bits */
        LINE("01", "000AFC80", "   101        -1 7"),
        LINE("01", "000AFC80", "   101        0 18446744073709551616"), /* above 64 bits */
        LINE("01", "000AFC80", "   101        0 7x"),
        LINE("01", "000AFC80", "   101        0"),
        LINE("01", "000AFC80", "101        0 7"),
    };
    pgs_row got;
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
        pgs_parse_result result = parse_line(lines[i], 4, &got);
        CHECK(result.malformed == 1 && result.rows == 0 && result.lines == 1);
    }
}

static void a_line_that_is_too_long_is_malformed(void)
{
    char line[700];
    pgs_row got;
    pgs_row row = make_row(4, "10.0.0.1", 5432, "10.0.0.2", 1, PGS_ESTABLISHED, 1);
    for (size_t length = 150; length < 500; length++) {
        char *end = write_row(line, 0, &row) - 1;
        memset(end, ' ', length);
        line[length - 1] = '\n';
        line[length] = 0;
        CHECK(parse_line(line, 4, &got).rows == (length <= PGS_MAX_ROW_TEXT));
    }
}

static void odd_but_whole_rows_are_read(void)
{
    pgs_row got;
    CHECK(parse_line(LINE("0C", "000AFC80", "   101        0 7"), 4, &got).rows == 1);
    CHECK(got.state == PGS_SYN_RECV);
    CHECK(parse_line(LINE("01", "FF000AFC80", " 101 0 7"), 4, &got).rows == 1);
    CHECK(parse_line(LINE("01", "00000AFC80", " 101 0 7"), 4, &got).rows == 1);
}

int main(void)
{
    build_wall();
    for (int family = 4; family <= 6; family += 2) {
        every_field_is_read(family);
        every_truncation_gives_the_complete_lines(family);
        every_shortened_line_is_a_row_or_malformed(family);
        a_broken_byte_before_the_inode_is_malformed(family);
        a_full_output_stops_before_the_next_row_and_goes_on_later(family);
        ports_choose_rows(family);
    }
    malformed_lines_are_counted();
    a_line_that_is_too_long_is_malformed();
    odd_but_whole_rows_are_read();
    return 0;
}
