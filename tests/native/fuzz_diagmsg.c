/*
 * libFuzzer entry for the messages of sock_diag: one datagram, copied so that one byte too far is seen by
 * AddressSanitizer.
 */
#include "diagmsg.h"
#include "rows.h"

enum { CAPACITY = 64 };

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static pgs_row rows[CAPACITY];
    pgs_diag_result result;
    uint32_t messages = 0, sockets = 0;
    uint8_t *copy = malloc(size + !size);
    memcpy(copy, input, size);
    pgs_diag_parse(copy, size, rows, CAPACITY, &result);
    CHECK(result.rows <= CAPACITY && result.rows <= result.messages);
    for (uint32_t i = 0; i < result.rows; i++)
        CHECK(rows[i].state >= PGS_ESTABLISHED && rows[i].state <= PGS_CLOSING && rows[i].reserved == 0 &&
              (rows[i].family == 4 || rows[i].family == 6));

    /* Message by message it is the same, every message lies within the datagram, and each one brings it nearer to its
     * end. */
    const uint8_t *at = copy, *const end = copy + size, *before = at;
    for (;;) {
        pgs_message message;
        pgs_details details;
        pgs_row row;
        enum pgs_message_kind kind = pgs_message_next(&at, end, &message);
        if (kind == PGS_MESSAGE_NONE || kind == PGS_MESSAGE_MALFORMED) {
            CHECK(result.malformed == (kind == PGS_MESSAGE_MALFORMED));
            break;
        }
        CHECK(at > before && at <= end);
        before = at;
        messages++;
        if (kind != PGS_MESSAGE_SOCKET)
            continue;
        CHECK(message.attributes + message.attributes_length <= end);
        pgs_message_details(&message, 1, &details);
        CHECK(details.at == 1);
        sockets += (uint32_t)pgs_message_row(message.socket, &row);
    }
    CHECK(messages == result.messages && result.rows == (sockets < CAPACITY ? sockets : CAPACITY));
    free(copy);
    return 0;
}
