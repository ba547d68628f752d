/* An OpenAI-compatible streaming server that costs as little as possible, to measure clients with.
 *
 * One thread and epoll. It is step-synchronous, as an engine is: at every decode step each running stream gets
 * one event of about 230 bytes. Nothing is computed; the text is " tok" as often as an event has tokens.
 *
 *     mock --port 0 --ttft-ms 50 --step-ms 20 [--tokens-per-event 1] [--cpu 0] [--role-event]
 *
 * It prints "listening on PORT" once it does, binds to the loopback interface only, and serves
 *
 *     POST /v1/completions, /v1/chat/completions    streamed, chunked, keep-alive; the whole answer at once if not
 *                                                   asked to stream. usage if stream_options asks for it
 *     GET  /health, /v1/models
 *     POST /reset                                   forget what was counted
 *     GET  /stats                                   JSON of what was counted since
 *     GET  /requests                                CSV, one line per finished request, times in ns
 *
 * Every time is CLOCK_MONOTONIC, so that a client on the same machine can compare it with its own. A request counts
 * as received when the kernel had its last byte (SO_TIMESTAMPNS), however busy this loop was. The id of each event
 * ends in the 19 digits of the time it was sent at: the error of a client's stamp is its stamp less that.
 * usage's prompt_tokens is a quarter of the body's length: the mock has no tokenizer.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_FD = 1 << 17,
    READ_BYTES = 4096,         /* room made before each read; more once the length of a request is known */
    KEPT_BYTES = 16384,        /* a larger buffer is given back after its request */
    MAX_TOKENS_PER_EVENT = 64,
    EVENT_BYTES = 1024,
    STAMP_DIGITS = 19,
    DEFAULT_TOKENS = 64,
};

typedef struct {
    char *bytes;
    size_t length, capacity;
} Buffer;

/* One connection, and the request on it. */
typedef struct {
    int fd;
    Buffer in;                 /* what was read and not answered yet */
    Buffer out;                /* what the socket did not take yet */
    size_t head_length, request_length; /* 0 until the whole head is there */
    int slot;                  /* place among the running streams, or -1 */
    bool dead, close_after, waits_to_write;
    bool chat, usage, continuous_usage;
    int tokens, events, max_tokens, prompt_tokens;
    int64_t accepted, received, first, due;
} Connection;

typedef struct {
    int64_t accepted, received, first, last;
    int tokens, events;
    int first_tokens;          /* tokens in the first event */
} Record;

/* An event as it goes out, chunk framing included; the stamp is written over zeros. */
typedef struct {
    char bytes[EVENT_BYTES];
    size_t length, stamp_at;
} Template;

static struct {
    int64_t ttft_ns, step_ns;
    int tokens_per_event, port, cpu;
    bool role_event;
} options = {.step_ns = 20000000, .tokens_per_event = 1, .cpu = -1};

static struct {
    Record *records;
    size_t length, capacity;
    int64_t tokens, events, steps, overruns, blocked, aborted, longest_step_ns, busy_ns;
    int peak_running;
    int64_t first_accepted, last_accepted, first_received, last_received, first_token, last_token;
    double cpu_before_s;
} counted;

static Connection *connections[MAX_FD];
static Connection *running[MAX_FD];
static int running_count;
static int epoll_fd;
static int64_t realtime_offset;          /* CLOCK_REALTIME less CLOCK_MONOTONIC, taken in every turn of the loop */
static Template templates[2][2];         /* [chat][last event] */

/* ---- small things ---- */

static void die(const char *what)
{
    fprintf(stderr, "mock: %s: %s\n", what, strerror(errno));
    exit(1);
}

static void *grow(void *memory, size_t bytes)
{
    void *grown = realloc(memory, bytes);
    if (!grown)
        die("no memory");
    return grown;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int64_t now_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

static double cpu_s(void)
{
    return (double)clock_ns(CLOCK_PROCESS_CPUTIME_ID) / 1e9;
}

static void reserve(Buffer *buffer, size_t more)
{
    if (buffer->length + more <= buffer->capacity)
        return;
    size_t doubled = buffer->capacity * 2;
    buffer->capacity = buffer->length + more > doubled ? buffer->length + more : doubled;
    buffer->bytes = grow(buffer->bytes, buffer->capacity);
}

static void append(Buffer *buffer, const char *bytes, size_t length)
{
    reserve(buffer, length);
    memcpy(buffer->bytes + buffer->length, bytes, length);
    buffer->length += length;
}

/* Drop the first `length` bytes, and the memory if it grew large and is not needed any more. */
static void consume(Buffer *buffer, size_t length)
{
    buffer->length -= length;
    memmove(buffer->bytes, buffer->bytes + length, buffer->length);
    if (!buffer->length && buffer->capacity > KEPT_BYTES) {
        free(buffer->bytes);
        *buffer = (Buffer){0};
    }
}

/* ---- writing ---- */

static void watch(Connection *c, bool writable)
{
    struct epoll_event event = {.events = EPOLLIN | (writable ? EPOLLOUT : 0), .data.fd = c->fd};
    if (epoll_ctl(epoll_fd, EPOLL_CTL_MOD, c->fd, &event))
        die("epoll_ctl");
    c->waits_to_write = writable;
}

/* Send now what the socket takes; keep the rest, in order, until it takes more. */
static void put(Connection *c, const char *bytes, size_t length)
{
    ssize_t sent = 0;
    if (!c->out.length) {
        sent = send(c->fd, bytes, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EAGAIN && errno != EINTR) {
            c->dead = true;
            return;
        }
        if (sent < 0)
            sent = 0;
    }
    if ((size_t)sent == length)
        return;
    counted.blocked++;
    append(&c->out, bytes + sent, length - (size_t)sent);
    if (!c->waits_to_write)
        watch(c, true);
}

static void flush(Connection *c)
{
    ssize_t sent = send(c->fd, c->out.bytes, c->out.length, MSG_NOSIGNAL);
    if (sent < 0) {
        c->dead = errno != EAGAIN && errno != EINTR;
        return;
    }
    consume(&c->out, (size_t)sent);
    if (!c->out.length)
        watch(c, false);
}

static void respond(Connection *c, const char *status, const char *type, const char *body, size_t length)
{
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n\r\n", status,
                     type, length);
    put(c, head, (size_t)n);
    put(c, body, length);
}

static void respond_text(Connection *c, const char *status, const char *text)
{
    respond(c, status, "text/plain", text, strlen(text));
}

/* ---- events ---- */

/* Frame `payload` as one chunk at `to`; returns its length. */
static size_t frame(char *to, const char *payload)
{
    return (size_t)sprintf(to, "%zx\r\n%s\r\n", strlen(payload), payload);
}

/* Format an event of the stream; `usage` is the tail that carries it, or "". */
static size_t format_event(char *to, bool chat, bool last, int tokens, const char *usage)
{
    char payload[EVENT_BYTES], text[4 * MAX_TOKENS_PER_EVENT + 1] = "";
    for (int i = 0; i < tokens; i++)
        strcat(text, " tok");
    const char *finish = last ? "\"length\"" : "null";
    if (chat)
        snprintf(payload, sizeof payload,
                 "data: {\"id\":\"chatcmpl-%0*d\",\"object\":\"chat.completion.chunk\",\"created\":1763900000,"
                 "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"%s\"},\"logprobs\":null,"
                 "\"finish_reason\":%s}]%s}\n\n",
                 STAMP_DIGITS, 0, text, finish, usage);
    else
        snprintf(payload, sizeof payload,
                 "data: {\"id\":\"cmpl-%0*d\",\"object\":\"text_completion\",\"created\":1763900000,"
                 "\"model\":\"mock\",\"choices\":[{\"index\":0,\"text\":\"%s\",\"logprobs\":null,"
                 "\"finish_reason\":%s,\"stop_reason\":null}]%s}\n\n",
                 STAMP_DIGITS, 0, text, finish, usage);
    return frame(to, payload);
}

static size_t find_stamp(const char *event)
{
    const char *id = strstr(event, "cmpl-");
    return (size_t)(id - event) + strlen("cmpl-");
}

static void make_templates(void)
{
    for (int chat = 0; chat < 2; chat++)
        for (int last = 0; last < 2; last++) {
            Template *t = &templates[chat][last];
            t->length = format_event(t->bytes, chat, last, options.tokens_per_event, chat ? "" : ",\"usage\":null");
            t->stamp_at = find_stamp(t->bytes);
        }
}

static void write_stamp(char *to, int64_t ns)
{
    for (int i = STAMP_DIGITS - 1; i >= 0; i--, ns /= 10)
        to[i] = (char)('0' + ns % 10);
}

static void format_usage(char *to, size_t size, const Connection *c)
{
    snprintf(to, size, ",\"usage\":{\"prompt_tokens\":%d,\"total_tokens\":%d,\"completion_tokens\":%d}",
             c->prompt_tokens, c->prompt_tokens + c->tokens, c->tokens);
}

/* What follows the last token: usage if asked for, [DONE], and the end of the body. */
static size_t format_end(char *to, const Connection *c)
{
    size_t length = 0;
    if (c->usage) {
        char payload[EVENT_BYTES], usage[128];
        format_usage(usage, sizeof usage, c);
        snprintf(payload, sizeof payload,
                 "data: {\"id\":\"%s-end\",\"object\":\"%s\",\"created\":1763900000,\"model\":\"mock\","
                 "\"choices\":[]%s}\n\n",
                 c->chat ? "chatcmpl" : "cmpl", c->chat ? "chat.completion.chunk" : "text_completion", usage);
        length += frame(to, payload);
    }
    length += frame(to + length, "data: [DONE]\n\n");
    memcpy(to + length, "0\r\n\r\n", 5);
    return length + 5;
}

static size_t format_role(char *to)
{
    return frame(to, "data: {\"id\":\"chatcmpl-role\",\"object\":\"chat.completion.chunk\",\"created\":1763900000,"
                     "\"model\":\"mock\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\","
                     "\"content\":\"\"},\"logprobs\":null,\"finish_reason\":null}]}\n\n");
}

/* ---- streams ---- */

static void leave_running(Connection *c)
{
    if (c->slot < 0)
        return;
    Connection *moved = running[--running_count];
    running[c->slot] = moved;
    moved->slot = c->slot;
    c->slot = -1;
}

static void record(const Connection *c, int64_t last)
{
    if (counted.length == counted.capacity) {
        counted.capacity = counted.capacity ? counted.capacity * 2 : 4096;
        counted.records = grow(counted.records, counted.capacity * sizeof(Record));
    }
    int first = c->max_tokens < options.tokens_per_event ? c->max_tokens : options.tokens_per_event;
    counted.records[counted.length++] = (Record){.accepted = c->accepted, .received = c->received,
                                                 .first = c->first, .last = last, .tokens = c->tokens,
                                                 .events = c->events, .first_tokens = first};
}

/* One decode step of one stream: its next event, and the end of the response after the last. */
static void emit(Connection *c)
{
    char bytes[4 * EVENT_BYTES];
    size_t length = 0;
    int left = c->max_tokens - c->tokens;
    int tokens = left < options.tokens_per_event ? left : options.tokens_per_event;
    bool last = tokens == left;
    if (!c->events && c->chat && options.role_event)
        length += format_role(bytes);
    c->tokens += tokens;
    c->events++;

    size_t stamp_at;
    const Template *template = &templates[c->chat][last];
    if (c->continuous_usage || tokens != options.tokens_per_event) {
        char usage[128] = "";
        if (c->continuous_usage)
            format_usage(usage, sizeof usage, c);
        size_t event_at = length;
        length += format_event(bytes + length, c->chat, last, tokens, usage);
        stamp_at = event_at + find_stamp(bytes + event_at);
    } else {
        memcpy(bytes + length, template->bytes, template->length);
        stamp_at = length + template->stamp_at;
        length += template->length;
    }
    if (last)
        length += format_end(bytes + length, c);

    int64_t sent = now_ns();
    write_stamp(bytes + stamp_at, sent);
    put(c, bytes, length);
    if (c->events == 1)
        c->first = sent;
    if (!counted.first_token)
        counted.first_token = sent;
    counted.last_token = sent;
    counted.tokens += tokens;
    counted.events++;
    if (last) {
        record(c, sent);
        leave_running(c);
    }
}

/* ---- what was counted ---- */

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void write_distribution(FILE *to, const char *name, double *values, size_t n)
{
    if (!n) {
        fprintf(to, ",\"%s\":null", name);
        return;
    }
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += values[i];
    qsort(values, n, sizeof *values, compare);
    fprintf(to, ",\"%s\":{\"mean\":%.6f,\"p50\":%.6f,\"p99\":%.6f}", name, sum / (double)n, values[n / 2],
            values[(size_t)((double)(n - 1) * 0.99)]);
}

static void write_latencies(FILE *to)
{
    size_t n = counted.length, with_gaps = 0;
    double *ttft = grow(NULL, (n + 1) * sizeof(double)), *tpot = grow(NULL, (n + 1) * sizeof(double));
    double *e2el = grow(NULL, (n + 1) * sizeof(double));
    for (size_t i = 0; i < n; i++) {
        const Record *r = &counted.records[i];
        ttft[i] = (double)(r->first - r->received) / 1e6;
        e2el[i] = (double)(r->last - r->received) / 1e6;
        if (r->tokens > r->first_tokens)
            tpot[with_gaps++] = (double)(r->last - r->first) / 1e6 / (r->tokens - r->first_tokens);
    }
    write_distribution(to, "ttft_ms", ttft, n);
    write_distribution(to, "tpot_ms", tpot, with_gaps);
    write_distribution(to, "e2el_ms", e2el, n);
    free(ttft);
    free(tpot);
    free(e2el);
}

static void write_stats(FILE *to)
{
    fprintf(to, "{\"requests\":%zu,\"tokens\":%" PRId64 ",\"events\":%" PRId64 ",\"steps\":%" PRId64, counted.length,
            counted.tokens, counted.events, counted.steps);
    fprintf(to, ",\"overruns\":%" PRId64 ",\"blocked_sends\":%" PRId64 ",\"aborted\":%" PRId64, counted.overruns,
            counted.blocked, counted.aborted);
    fprintf(to, ",\"running\":%d,\"peak_running\":%d", running_count, counted.peak_running);
    fprintf(to, ",\"longest_step_ms\":%.3f,\"busy_s\":%.6f,\"cpu_s\":%.6f", (double)counted.longest_step_ns / 1e6,
            (double)counted.busy_ns / 1e9, cpu_s() - counted.cpu_before_s);
    write_latencies(to);
    fprintf(to, ",\"first_accepted_ns\":%" PRId64 ",\"last_accepted_ns\":%" PRId64, counted.first_accepted,
            counted.last_accepted);
    fprintf(to, ",\"first_received_ns\":%" PRId64 ",\"last_received_ns\":%" PRId64, counted.first_received,
            counted.last_received);
    fprintf(to, ",\"first_token_ns\":%" PRId64 ",\"last_token_ns\":%" PRId64 "}\n", counted.first_token,
            counted.last_token);
}

static void write_requests(FILE *to)
{
    fputs("accepted_ns,received_ns,first_ns,last_ns,tokens,events\n", to);
    for (size_t i = 0; i < counted.length; i++) {
        const Record *r = &counted.records[i];
        fprintf(to, "%" PRId64 ",%" PRId64 ",%" PRId64 ",%" PRId64 ",%d,%d\n", r->accepted, r->received, r->first,
                r->last, r->tokens, r->events);
    }
}

static void respond_written(Connection *c, const char *type, void (*write)(FILE *))
{
    char *text = NULL;
    size_t length = 0;
    FILE *to = open_memstream(&text, &length);
    if (!to)
        die("open_memstream");
    write(to);
    if (fclose(to))
        die("no memory for an answer");
    respond(c, "200 OK", type, text, length);
    free(text);
}

static void reset(void)
{
    free(counted.records);
    memset(&counted, 0, sizeof counted);
    counted.cpu_before_s = cpu_s();
}

/* ---- requests ---- */

/* The number after `"key":` in a JSON text, or `otherwise`. A quote inside a string is escaped, so that the quoted
 * key is found as a key only; objects within objects are not told apart. */
static int find_number(const char *json, size_t length, const char *key, int otherwise)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *end = json + length, *at = memmem(json, length, quoted, (size_t)n);
    if (!at)
        return otherwise;
    for (at += n; at < end && (*at == ' ' || *at == ':'); at++)
        ;
    int value = 0;
    if (at == end || *at < '0' || *at > '9')
        return otherwise;
    for (; at < end && *at >= '0' && *at <= '9' && value < 100000000; at++)
        value = value * 10 + (*at - '0');
    return value;
}

static bool find_true(const char *json, size_t length, const char *key)
{
    char quoted[64];
    int n = snprintf(quoted, sizeof quoted, "\"%s\"", key);
    const char *end = json + length, *at = memmem(json, length, quoted, (size_t)n);
    if (!at)
        return false;
    for (at += n; at < end && (*at == ' ' || *at == ':'); at++)
        ;
    return end - at >= 4 && !memcmp(at, "true", 4);
}

/* Where the value of a header begins, or NULL. The head is a string. */
static const char *find_header(const char *head, const char *name)
{
    char start[64];
    snprintf(start, sizeof start, "\r\n%s:", name);
    const char *at = strcasestr(head, start);
    if (!at)
        return NULL;
    at += strlen(start);
    return at + strspn(at, " ");
}

static void respond_whole(Connection *c)
{
    char body[EVENT_BYTES], usage[128];
    c->tokens = c->max_tokens;
    format_usage(usage, sizeof usage, c);
    int n = snprintf(body, sizeof body,
                     "{\"id\":\"cmpl-whole\",\"object\":\"%s\",\"created\":1763900000,\"model\":\"mock\","
                     "\"choices\":[{\"index\":0,%s,\"finish_reason\":\"length\"}]%s}",
                     c->chat ? "chat.completion" : "text_completion",
                     c->chat ? "\"message\":{\"role\":\"assistant\",\"content\":\" tok\"}" : "\"text\":\" tok\"",
                     usage);
    respond(c, "200 OK", "application/json", body, (size_t)n);
}

static void begin_completion(Connection *c, bool chat)
{
    static const char head[] = "HTTP/1.1 200 OK\r\nserver: mock\r\ncontent-type: text/event-stream; charset=utf-8\r\n"
                               "transfer-encoding: chunked\r\n\r\n";
    const char *body = c->in.bytes + c->head_length;
    size_t length = c->request_length - c->head_length;
    int tokens = find_number(body, length, "min_tokens", DEFAULT_TOKENS);
    tokens = find_number(body, length, "max_tokens", tokens);
    tokens = find_number(body, length, "max_completion_tokens", tokens);
    c->chat = chat;
    c->max_tokens = tokens > 0 ? tokens : 1;
    c->usage = find_true(body, length, "include_usage");
    c->continuous_usage = find_true(body, length, "continuous_usage_stats");
    c->prompt_tokens = (int)(length / 4);
    c->tokens = c->events = 0;
    if (!find_true(body, length, "stream")) {
        respond_whole(c);
        return;
    }
    if (!counted.first_received || c->received < counted.first_received)
        counted.first_received = c->received;
    if (c->received > counted.last_received)
        counted.last_received = c->received;
    if (!counted.first_accepted || c->accepted < counted.first_accepted)
        counted.first_accepted = c->accepted;
    if (c->accepted > counted.last_accepted)
        counted.last_accepted = c->accepted;
    c->due = c->received + options.ttft_ns;
    c->slot = running_count;
    running[running_count++] = c;
    if (running_count > counted.peak_running)
        counted.peak_running = running_count;
    put(c, head, sizeof head - 1);
}

static bool is_path(const char *target, const char *path)
{
    size_t n = strlen(path);
    return !strncmp(target, path, n) && (target[n] == ' ' || target[n] == '?');
}

static void answer(Connection *c)
{
    static const char models[] = "{\"object\":\"list\",\"data\":[{\"id\":\"mock\",\"object\":\"model\","
                                 "\"created\":1763900000,\"owned_by\":\"mock\",\"root\":\"mock\","
                                 "\"max_model_len\":1000000}]}";
    const char *space = memchr(c->in.bytes, ' ', c->head_length);
    const char *target = space ? space + 1 : "";
    if (is_path(target, "/v1/completions"))
        begin_completion(c, false);
    else if (is_path(target, "/v1/chat/completions"))
        begin_completion(c, true);
    else if (is_path(target, "/health"))
        respond_text(c, "200 OK", "ok\n");
    else if (is_path(target, "/v1/models"))
        respond(c, "200 OK", "application/json", models, sizeof models - 1);
    else if (is_path(target, "/stats"))
        respond_written(c, "application/json", write_stats);
    else if (is_path(target, "/requests"))
        respond_written(c, "text/csv", write_requests);
    else if (is_path(target, "/reset")) {
        reset();
        respond_text(c, "200 OK", "ok\n");
    } else
        respond_text(c, "404 Not Found", "no such path\n");
}

/* Find the end of the head and the length of the whole request; false while the head is not complete. */
static bool read_head(Connection *c)
{
    char *end = c->in.length ? memmem(c->in.bytes, c->in.length, "\r\n\r\n", 4) : NULL;
    if (!end)
        return false;
    char *past = end + 4, kept = end[2];
    end[2] = '\0'; /* headers are looked for in the head alone, each with the line end before it */
    const char *length = find_header(c->in.bytes, "content-length");
    const char *expect = find_header(c->in.bytes, "expect");
    const char *connection = find_header(c->in.bytes, "connection");
    c->close_after = connection && !strncasecmp(connection, "close", 5);
    c->head_length = (size_t)(past - c->in.bytes);
    c->request_length = c->head_length + (length ? strtoull(length, NULL, 10) : 0);
    if (find_header(c->in.bytes, "transfer-encoding")) {
        respond_text(c, "411 Length Required", "send a Content-Length\n");
        c->dead = true;
    } else if (expect && !strncasecmp(expect, "100-continue", 12) && c->in.length < c->request_length)
        put(c, "HTTP/1.1 100 Continue\r\n\r\n", 25);
    end[2] = kept;
    return true;
}

/* Answer every request that is there in whole, unless a stream is running. */
static void answer_requests(Connection *c)
{
    while (!c->dead && c->slot < 0) {
        if (!c->request_length && !read_head(c))
            return;
        if (c->dead || c->in.length < c->request_length)
            return;
        answer(c);
        consume(&c->in, c->request_length);
        c->head_length = c->request_length = 0;
        if (c->close_after && c->slot < 0)
            c->dead = true;
    }
}

/* ---- connections ---- */

static void close_connection(Connection *c)
{
    counted.aborted += c->slot >= 0;
    leave_running(c);
    connections[c->fd] = NULL;
    close(c->fd);
    free(c->in.bytes);
    free(c->out.bytes);
    free(c);
}

static void accept_connections(int listener)
{
    for (;;) {
        int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC), on = 1;
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0 && errno != EAGAIN)
            die("accept");
        if (fd < 0)
            return;
        if (fd >= MAX_FD || setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on))
            die("a new connection");
        Connection *c = grow(NULL, sizeof *c);
        *c = (Connection){.fd = fd, .slot = -1, .accepted = now_ns()};
        connections[fd] = c;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        if (epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &event))
            die("epoll_ctl");
    }
}

/* The kernel's receive stamp of what was just read, as CLOCK_MONOTONIC; the present where it has none. */
static int64_t received_ns(struct msghdr *message)
{
    for (struct cmsghdr *m = CMSG_FIRSTHDR(message); m; m = CMSG_NXTHDR(message, m))
        if (m->cmsg_level == SOL_SOCKET && m->cmsg_type == SCM_TIMESTAMPNS) {
            struct timespec t;
            memcpy(&t, CMSG_DATA(m), sizeof t);
            return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec - realtime_offset;
        }
    return now_ns();
}

static void read_connection(Connection *c)
{
    char control[CMSG_SPACE(sizeof(struct timespec))];
    size_t missing = c->request_length > c->in.length ? c->request_length - c->in.length : 0;
    reserve(&c->in, missing > READ_BYTES ? missing : READ_BYTES);
    struct iovec part = {.iov_base = c->in.bytes + c->in.length, .iov_len = c->in.capacity - c->in.length};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    ssize_t n = recvmsg(c->fd, &message, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        c->dead = true;
        return;
    }
    c->in.length += (size_t)n;
    if (c->slot < 0)
        c->received = received_ns(&message);
    answer_requests(c);
}

static void serve(Connection *c, uint32_t events)
{
    if (events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        read_connection(c);
    if (!c->dead && events & EPOLLOUT)
        flush(c);
    if (c->dead)
        close_connection(c);
}

/* ---- the loop ---- */

/* One event for every stream that is due. Going down, a stream that ends is replaced by one that had its turn. */
static void step(void)
{
    int64_t began = now_ns();
    bool any = running_count > 0;
    for (int i = running_count - 1; i >= 0; i--) {
        Connection *c = running[i];
        if (c->due <= began)
            emit(c);
        if (c->slot < 0) {
            if (c->close_after)
                c->dead = true;
            answer_requests(c);
        }
        if (c->dead)
            close_connection(c);
    }
    int64_t took = now_ns() - began;
    counted.steps++;
    if (took > counted.longest_step_ns)
        counted.longest_step_ns = took;
    counted.overruns += any && took > options.step_ns;
}

static int open_listener(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), on = 1;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)options.port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_TIMESTAMPNS, &on, sizeof on) || /* accepted sockets inherit it */
        bind(fd, (struct sockaddr *)&address, size) || listen(fd, 65535) ||
        getsockname(fd, (struct sockaddr *)&address, &size))
        die("can't listen");
    printf("listening on %d\n", ntohs(address.sin_port));
    fflush(stdout);
    return fd;
}

static int open_timer(void)
{
    int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    struct timespec period = {.tv_sec = options.step_ns / 1000000000, .tv_nsec = options.step_ns % 1000000000};
    struct itimerspec every = {.it_interval = period, .it_value = period};
    if (fd < 0 || timerfd_settime(fd, 0, &every, NULL))
        die("timerfd");
    return fd;
}

static void run(int listener, int timer)
{
    struct epoll_event events[512];
    for (;;) {
        int n = epoll_wait(epoll_fd, events, 512, -1);
        if (n < 0 && errno != EINTR)
            die("epoll_wait");
        int64_t woke = now_ns();
        realtime_offset = clock_ns(CLOCK_REALTIME) - now_ns();
        bool stepping = false;
        for (int i = 0; i < n; i++) {
            int fd = events[i].data.fd;
            uint64_t expired;
            if (fd == listener)
                accept_connections(listener);
            else if (fd == timer) {
                if (read(timer, &expired, sizeof expired) == sizeof expired) {
                    stepping = true;
                    /* a step that could not even begin is one that the steps before it overran */
                    if (running_count)
                        counted.overruns += (int64_t)expired - 1;
                }
            } else if (connections[fd])
                serve(connections[fd], events[i].events);
        }
        if (stepping)
            step();
        counted.busy_ns += now_ns() - woke;
    }
}

/* ---- arguments ---- */

static double number(const char *name, const char *text, double least, double most)
{
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || !(value >= least && value <= most)) {
        fprintf(stderr, "mock: --%s %s: a number from %g to %g is wanted\n", name, text, least, most);
        exit(2);
    }
    return value;
}

static void read_options(int argc, char **argv)
{
    static const struct option names[] = {
        {"port", required_argument, NULL, 'p'},  {"ttft-ms", required_argument, NULL, 't'},
        {"step-ms", required_argument, NULL, 's'}, {"tokens-per-event", required_argument, NULL, 'k'},
        {"cpu", required_argument, NULL, 'c'},   {"role-event", no_argument, NULL, 'r'},
        {0},
    };
    int index = 0;
    for (int found; (found = getopt_long(argc, argv, "", names, &index)) != -1;)
        switch (found) {
        case 'p': options.port = (int)number("port", optarg, 0, 65535); break;
        case 't': options.ttft_ns = (int64_t)(number("ttft-ms", optarg, 0, 1e7) * 1e6); break;
        case 's': options.step_ns = (int64_t)(number("step-ms", optarg, 0.1, 1e6) * 1e6); break;
        case 'k': options.tokens_per_event = (int)number("tokens-per-event", optarg, 1, MAX_TOKENS_PER_EVENT); break;
        case 'c': options.cpu = (int)number("cpu", optarg, 0, CPU_SETSIZE - 1); break;
        case 'r': options.role_event = true; break;
        default:
            fprintf(stderr, "usage: mock --port N --ttft-ms X --step-ms X [--tokens-per-event N] [--cpu N] "
                            "[--role-event]\n");
            exit(2);
        }
}

static void prepare_process(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        die("getrlimit");
    files.rlim_cur = files.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &files))
        die("setrlimit");
    if (options.cpu >= 0) {
        cpu_set_t only;
        CPU_ZERO(&only);
        CPU_SET((size_t)options.cpu, &only);
        if (sched_setaffinity(0, sizeof only, &only))
            die("--cpu");
    }
    signal(SIGPIPE, SIG_IGN);
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    prepare_process();
    make_templates();
    reset();
    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    int listener = open_listener(), timer = open_timer();
    struct epoll_event on_listener = {.events = EPOLLIN, .data.fd = listener};
    struct epoll_event on_timer = {.events = EPOLLIN, .data.fd = timer};
    if (epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, listener, &on_listener) ||
        epoll_ctl(epoll_fd, EPOLL_CTL_ADD, timer, &on_timer))
        die("epoll");
    run(listener, timer);
}
