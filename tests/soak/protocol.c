/* The protocol's model of tests/unit/protocol_model.py and protocol_steps.py once more, to be searched fast.
 *
 * Python is the model that people read. This is its translation, name by name, and protocol_compiled.py holds it against
 * Python: state by state, and search by search. A state is three numbers: what both workers share, and each worker.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { RUNS = 6, NOBODY = -1, TROUBLES = 5, MOST_STEPS = 64, MOST_PRICES = 128 };
enum { UP, PAUSED, DOWN };
enum { NONE, DECIDED, WAITING, GRANTED, STALE, STARTED, DEAD, REFUSED, SKIPPED, LOST, OVER };
enum { CLAIMED, ENDED, ROW_SKIPPED, ROW_LOST };
enum { NOT, MYSQL, ZOOKEEPER, AUTONOMOUS, OUTDATED_MYSQL, OUTDATED_ZOOKEEPER, OUTDATED_AUTONOMOUS };
enum { CRASHES, CUTS, PAUSES, LOST_ANSWERS, MOVES };
/* What kind of step it is: those but PLAIN are not waited for when all is calm. */
enum { PLAIN, NOT_CALM };
/* What is broken: BROKEN_TWICE + 8 * first + second, BROKEN_WHEN_LOST + grant, or one of these. */
enum { WELL, BROKEN_ONCE, BROKEN_ORDER, UNDECIDED, NOBODY_RUNS, NOT_ONE_OWNER, CLAIM_STAYS, BROKEN_WHEN_LOST = 16, BROKEN_TWICE = 64, MOST_BROKEN = 128 };

typedef struct {
    int32_t at_most_once, fires, most[TROUBLES], troubles, reads_back, refuses_lost, waits_for_release, catches_up,
        asks_zookeeper, orders_expire, carries_home, trusts_ledger, looks_for_lost, hints_are_certain, hints_by_ledger,
        tells_unstarted, gives_up_doubtful;
} Rules;

typedef struct { uint8_t phase, grant, dirty; } Entry;
typedef struct { uint8_t mode, has_task, owns, no_mysql, no_zookeeper, cursor, seen, outdated; Entry runs[RUNS]; } Worker;
typedef struct {
    uint8_t due, hint;
    int8_t assigned;
    uint8_t rows[RUNS];  /* 0: none; else 1 + 4 * owner + state */
    int8_t znodes[RUNS];
    uint8_t starts[RUNS];
    Worker workers[2];
    uint8_t left[TROUBLES], troubles;
} State;

typedef struct { uint64_t shared, workers[2]; } Packed;
typedef struct { State state; uint8_t kind, broken; } Step;
typedef struct { Step steps[MOST_STEPS]; int count; } Steps;

#define ROW(owner, state) (1 + 4 * (owner) + (state))
#define OWNER(row) (((row) - 1) / 4)
#define STATE(row) (((row) - 1) % 4)

static Entry entry(int phase, int grant, int dirty) { return (Entry){(uint8_t)phase, (uint8_t)grant, (uint8_t)dirty}; }

/* ------------------------------------------------------------------------------------------- states as numbers */

static uint64_t pack_worker(const Worker *w) {
    uint64_t n = 0;
    for (int i = RUNS - 1; i >= 0; i--)
        n = n << 8 | (uint64_t)(w->runs[i].phase | w->runs[i].grant << 4 | w->runs[i].dirty << 7);
    uint64_t head = (uint64_t)(w->mode | w->has_task << 2 | w->owns << 3 | w->no_mysql << 4 | w->no_zookeeper << 5 |
                               w->cursor << 6 | w->seen << 8 | w->outdated << 10);
    return n | head << 48;
}

static void unpack_worker(uint64_t n, Worker *w) {
    for (int i = 0; i < RUNS; i++, n >>= 8)
        w->runs[i] = entry(n & 15, n >> 4 & 7, n >> 7 & 1);
    w->mode = n & 3, w->has_task = n >> 2 & 1, w->owns = n >> 3 & 1, w->no_mysql = n >> 4 & 1;
    w->no_zookeeper = n >> 5 & 1, w->cursor = n >> 6 & 3, w->seen = n >> 8 & 3, w->outdated = n >> 10 & 1;
}

static uint64_t pack_shared(const State *s) {
    uint64_t n = 0;
    for (int i = RUNS - 1; i >= 0; i--)
        n = n << 4 | s->rows[i];
    for (int i = RUNS - 1; i >= 0; i--)
        n = n << 2 | (uint64_t)(s->znodes[i] + 1);
    for (int i = RUNS - 1; i >= 0; i--)
        n = n << 3 | s->starts[i];
    return n << 6 | (uint64_t)(s->due | (s->assigned + 1) << 2 | s->hint << 4);
}

static void unpack_shared(uint64_t n, State *s) {
    s->due = n & 3, s->assigned = (int8_t)((int)(n >> 2 & 3) - 1), s->hint = n >> 4 & 3, n >>= 6;
    for (int i = 0; i < RUNS; i++, n >>= 3)
        s->starts[i] = n & 7;
    for (int i = 0; i < RUNS; i++, n >>= 2)
        s->znodes[i] = (int8_t)((int)(n & 3) - 1);
    for (int i = 0; i < RUNS; i++, n >>= 4)
        s->rows[i] = n & 15;
}

static Packed pack(const State *s) {
    return (Packed){pack_shared(s), {pack_worker(&s->workers[0]), pack_worker(&s->workers[1])}};
}

static void unpack(const Packed *p, State *s) {
    unpack_shared(p->shared, s);
    unpack_worker(p->workers[0], &s->workers[0]);
    unpack_worker(p->workers[1], &s->workers[1]);
}

static int8_t other(int8_t worker) { return worker == NOBODY ? NOBODY : (int8_t)(1 - worker); }

/* Workers are alike: of a state and its mirror image the lesser one stands for both. */
static Packed canonical(const State *s) {
    Packed one = pack(s);
    State t = *s;
    t.assigned = other(s->assigned);
    for (int i = 0; i < RUNS; i++) {
        t.rows[i] = s->rows[i] ? (uint8_t)ROW(1 - OWNER(s->rows[i]), STATE(s->rows[i])) : 0;
        t.znodes[i] = other(s->znodes[i]);
    }
    Packed two = {pack_shared(&t), {one.workers[1], one.workers[0]}};
    return memcmp(&one, &two, sizeof one) <= 0 ? one : two;
}

/* --------------------------------------------------------------------------------------------- protocol_model.py */

static void begin(const Rules *rules, State *s) {
    memset(s, 0, sizeof *s);
    s->assigned = 0;
    for (int i = 0; i < RUNS; i++)
        s->znodes[i] = NOBODY;
    s->workers[0].has_task = s->workers[0].owns = 1;
    for (int i = 0; i < TROUBLES; i++)
        s->left[i] = (uint8_t)rules->most[i];
    s->troubles = (uint8_t)rules->troubles;
}

static int can_spend(const State *s, int what) { return s->left[what] && s->troubles; }
static void spend(State *s, int what) { s->left[what]--, s->troubles--; }

static void looked(State *s, int index) {
    Worker *w = &s->workers[index];
    if (w->mode != UP || !w->has_task || w->cursor == s->due)
        return;
    for (int fire = w->cursor + 1; fire <= s->due; fire++)
        if (w->runs[2 * (fire - 1)].phase == NONE)
            w->runs[2 * (fire - 1)] = entry(DECIDED, NOT, 0);
    if (!(w->no_mysql && w->no_zookeeper))
        w->seen = s->due;
    w->cursor = s->due;
}

/* --------------------------------------------------------------------------------------------- protocol_steps.py */

static State *yield(Steps *steps, const State *s, int kind) {
    Step *step = &steps->steps[steps->count++];
    if (steps->count > MOST_STEPS)
        abort();
    step->state = *s, step->kind = (uint8_t)kind, step->broken = WELL;
    return &step->state;
}

static int is_outdated(const Worker *w, int run) {
    return w->outdated || w->runs[run].phase == STALE || w->runs[run].grant >= OUTDATED_MYSQL;
}

static void crashed(const Rules *rules, Worker *w, int node) {
    int outdated = w->outdated;
    for (int run = 0; run < 2 * rules->fires; run++)
        outdated = outdated || is_outdated(w, run);
    for (int run = 0; run < 2 * rules->fires; run++) {
        Entry *e = &w->runs[run];
        if (e->phase == GRANTED || e->phase == STALE)
            *e = entry(DECIDED, NOT, 0);
        else if (node && e->phase == STARTED)
            e->phase = DEAD, e->dirty = 1;
    }
    w->mode = DOWN, w->no_mysql = w->no_zookeeper = 0, w->outdated = (uint8_t)outdated;
}

static void restarted(const Rules *rules, Worker *w) {
    for (int run = 0; run < 2 * rules->fires; run++) {
        Entry *e = &w->runs[run];
        if (e->phase == DEAD)
            e->phase = LOST, e->dirty = 1;
        else if (!w->has_task && e->phase == DECIDED)
            *e = rules->tells_unstarted ? entry(LOST, NOT, 1) : entry(NONE, NOT, 0);
    }
    w->mode = UP;
    for (int run = 0; run < 2 * rules->fires; run += 2)
        if (w->runs[run].phase == LOST && w->runs[run].dirty && w->runs[run + 1].phase == NONE && w->has_task &&
            !rules->at_most_once)
            w->runs[run + 1] = entry(DECIDED, NOT, 0);
}

static void accidents(Steps *steps, const State *s, int index, const Rules *rules) {
    const Worker *w = &s->workers[index];
    State *t;
    if (w->mode != DOWN && can_spend(s, CUTS)) {
        if (!w->no_mysql)
            t = yield(steps, s, PLAIN), spend(t, CUTS), t->workers[index].no_mysql = 1;
        if (!w->no_zookeeper)
            t = yield(steps, s, PLAIN), spend(t, CUTS), t->workers[index].no_zookeeper = 1;
    }
    if (w->no_mysql)
        yield(steps, s, PLAIN)->workers[index].no_mysql = 0;
    if (w->no_zookeeper)
        yield(steps, s, PLAIN)->workers[index].no_zookeeper = 0;
    if (w->mode != DOWN && can_spend(s, CRASHES)) {
        t = yield(steps, s, PLAIN), spend(t, CRASHES), crashed(rules, &t->workers[index], 0);
        int started = 0;
        for (int run = 0; run < 2 * rules->fires; run++)
            started = started || w->runs[run].phase == STARTED;
        if (started)
            t = yield(steps, s, PLAIN), spend(t, CRASHES), crashed(rules, &t->workers[index], 1);
    }
    if (w->mode == DOWN)
        t = yield(steps, s, PLAIN), restarted(rules, &t->workers[index]), looked(t, index);
    if (w->mode == UP && can_spend(s, PAUSES))
        t = yield(steps, s, PLAIN), spend(t, PAUSES), t->workers[index].mode = PAUSED;
    if (w->mode == PAUSED)
        t = yield(steps, s, PLAIN), t->workers[index].mode = UP, looked(t, index);
}

static void carried_home(State *s) {
    for (int run = 0; run < RUNS; run++)
        if (!s->rows[run] && s->znodes[run] != NOBODY)
            s->rows[run] = (uint8_t)ROW(s->znodes[run], CLAIMED);
}

static int newest_claimed(const State *s) {
    int newest = 0;
    for (int run = 0; run < RUNS; run += 2)
        if (s->rows[run] && STATE(s->rows[run]) != ROW_SKIPPED)
            newest = run / 2 + 1;
    return newest;
}

static uint8_t most(int one, int two) { return (uint8_t)(one > two ? one : two); }

static void buried(State *s, int index, const Rules *rules) {
    Worker *w = &s->workers[index];
    if (rules->carries_home)
        carried_home(s);
    for (int run = 0; run < 2 * rules->fires; run++) {
        if (s->rows[run] == ROW(index, CLAIMED))
            s->rows[run] = ROW(index, ROW_LOST);
        if (w->runs[run].phase == GRANTED)
            w->runs[run].phase = STALE;
    }
    s->hint = most(s->hint, w->seen);
    w->owns = 0, w->outdated = w->has_task;
    if (s->assigned == index)
        s->assigned = NOBODY;
}

static void leader_steps(Steps *steps, const State *s, int index, const Rules *rules) {
    const Worker *w = &s->workers[index];
    State *t;
    int silent = w->mode != UP || (w->no_mysql && w->no_zookeeper);
    if (silent && (s->assigned == index || w->owns))
        buried(yield(steps, s, NOT_CALM), index, rules);
    if (s->assigned == index && can_spend(s, MOVES)) {
        t = yield(steps, s, PLAIN), spend(t, MOVES), t->assigned = NOBODY;
        t->hint = rules->hints_are_certain ? most(s->hint, w->seen) : s->due;
    }
    int free = !(s->workers[0].owns || s->workers[1].owns) || !rules->waits_for_release;
    if (s->assigned == NOBODY && free && w->mode == UP && !w->no_zookeeper) {
        t = yield(steps, s, PLAIN);
        if (rules->hints_by_ledger) {
            if (rules->carries_home)
                carried_home(t);
            t->hint = most(t->hint, newest_claimed(t));
        }
        t->assigned = (int8_t)index;
    }
}

static void let_go(Worker *w, const Rules *rules) {
    for (int run = 0; run < 2 * rules->fires; run++)
        if (w->runs[run].phase == WAITING)
            w->runs[run] = entry(NONE, NOT, rules->gives_up_doubtful);
    w->has_task = w->owns = 0;
}

static void up_to_date(Worker *w) { w->outdated = w->outdated && w->no_mysql; }

static int with_reruns(const State *s, Worker *w, const Rules *rules) {
    int changed = 0;
    if (rules->at_most_once)
        return 0;
    for (int run = 0; run < 2 * rules->fires; run += 2) {
        int lost = s->rows[run] && STATE(s->rows[run]) == ROW_LOST && !s->rows[run + 1], mine = w->runs[run].phase;
        if (lost && (mine == NONE || mine == REFUSED || mine == LOST) && w->runs[run + 1].phase == NONE)
            w->runs[run + 1] = entry(DECIDED, NOT, 0), changed = 1;
    }
    return changed;
}

static void taken_over(State *s, int index, const Rules *rules) {
    Worker *w = &s->workers[index];
    int cursor = rules->at_most_once && rules->trusts_ledger ? 0 : s->hint;
    if (!w->no_mysql) {
        if (rules->carries_home)
            carried_home(s);
        cursor = newest_claimed(s);
        if (!cursor)
            cursor = rules->trusts_ledger ? 0 : s->hint;
    }
    if (!rules->catches_up)
        cursor = s->due;
    w->has_task = w->owns = 1, w->cursor = (uint8_t)cursor;
    up_to_date(w);
    if (!w->no_mysql)
        with_reruns(s, w, rules);
    looked(s, index);
}

static void asks_zookeeper(Steps *steps, const State *s, int index, const int *wanted, const Rules *rules) {
    const Worker *before = &s->workers[index];
    State *t;
    if (rules->at_most_once) {
        t = yield(steps, s, PLAIN);
        for (int run = 0; run < RUNS; run++)
            if (wanted[run])
                t->workers[index].runs[run] = entry(WAITING, NOT, 0);
        return;
    }
    int without = before->no_zookeeper || !rules->asks_zookeeper;
    if (without || can_spend(s, LOST_ANSWERS)) {
        t = yield(steps, s, PLAIN);
        if (!without)
            spend(t, LOST_ANSWERS);
        for (int run = 0; run < RUNS; run++)
            if (wanted[run])
                t->workers[index].runs[run] =
                    entry(GRANTED, is_outdated(before, run) ? OUTDATED_AUTONOMOUS : AUTONOMOUS, 1);
        if (without)
            return;
    }
    t = yield(steps, s, PLAIN);
    for (int run = 0; run < RUNS; run++) {
        if (!wanted[run])
            continue;
        if (s->znodes[run] == NOBODY || s->znodes[run] == index) {
            t->znodes[run] = (int8_t)index;
            t->workers[index].runs[run] =
                entry(GRANTED, is_outdated(before, run) ? OUTDATED_ZOOKEEPER : ZOOKEEPER, 1);
        } else
            t->workers[index].runs[run] = entry(REFUSED, NOT, rules->gives_up_doubtful);
    }
}

static void claims(Steps *steps, const State *s, int index, const Rules *rules) {
    const Worker *w = &s->workers[index];
    int wanted[RUNS] = {0}, any = 0;
    for (int run = 0; run < 2 * rules->fires; run++) {
        int phase = w->runs[run].phase;
        wanted[run] = phase == DECIDED || phase == WAITING || (phase == STALE && rules->orders_expire);
        any = any || wanted[run];
    }
    if (!any)
        return;
    if (w->no_mysql) {
        asks_zookeeper(steps, s, index, wanted, rules);
        return;
    }
    State *granted = yield(steps, s, PLAIN), landed = *s;
    for (int run = 0; run < RUNS; run++) {
        if (!wanted[run])
            continue;
        int row = s->rows[run], mine = row && OWNER(row) == index && (STATE(row) != ROW_LOST || !rules->refuses_lost);
        if (!row)
            granted->rows[run] = landed.rows[run] = ROW(index, CLAIMED);
        granted->workers[index].runs[run] = !row || mine
            ? entry(GRANTED, is_outdated(w, run) ? OUTDATED_MYSQL : MYSQL, 0) : entry(REFUSED, NOT, 0);
    }
    if (!can_spend(s, LOST_ANSWERS))
        return;
    State unheard = *s;
    spend(&unheard, LOST_ANSWERS);
    asks_zookeeper(steps, &unheard, index, wanted, rules);
    spend(&landed, LOST_ANSWERS);
    if (rules->reads_back) {
        asks_zookeeper(steps, &landed, index, wanted, rules);
        return;
    }
    State *refused = yield(steps, &landed, PLAIN);
    for (int run = 0; run < RUNS; run++)
        if (wanted[run])
            refused->workers[index].runs[run] = entry(REFUSED, NOT, 0);
}

static int broken_by_start(const State *s, int index, int run, const Rules *rules) {
    int first = s->starts[run], row = s->rows[run], grant = s->workers[index].runs[run].grant;
    if (first != NOT)
        return BROKEN_TWICE + 8 * (first < grant ? first : grant) + (first < grant ? grant : first);
    if (rules->at_most_once && s->starts[run ^ 1] != NOT)
        return BROKEN_ONCE;
    if (run % 2 == 1) {
        int before = s->rows[run - 1], known = s->workers[index].runs[run - 1].phase == LOST;
        if (!known && (!before || STATE(before) == CLAIMED))
            return BROKEN_ORDER;
    }
    return row == ROW(index, ROW_LOST) ? BROKEN_WHEN_LOST + grant : WELL;
}

static void starts(Steps *steps, const State *s, int index, const Rules *rules) {
    State *t = NULL;
    for (int run = 0; run < 2 * rules->fires; run++) {
        Entry e = s->workers[index].runs[run];
        if (e.phase != GRANTED && (e.phase != STALE || rules->orders_expire))
            continue;
        if (!t)
            t = yield(steps, s, PLAIN);
        Step *step = &steps->steps[steps->count - 1];
        if (!step->broken)
            step->broken = (uint8_t)broken_by_start(t, index, run, rules);
        t->workers[index].runs[run] = entry(STARTED, NOT, 1);
        if (t->starts[run] == NOT)
            t->starts[run] = e.grant;
    }
}

static void reported(State *s, int index, const Rules *rules) {
    Worker *w = &s->workers[index];
    for (int run = 0; run < 2 * rules->fires; run++) {
        Entry *e = &w->runs[run];
        int row = s->rows[run], phase = e->phase, told = phase == STARTED || phase == SKIPPED || phase == LOST;
        int news = phase == STARTED ? ENDED : phase == SKIPPED ? ROW_SKIPPED : phase == LOST ? ROW_LOST : CLAIMED;
        if (!e->dirty)
            continue;
        if (phase == REFUSED || phase == NONE) {
            if (row == ROW(index, CLAIMED))
                s->rows[run] = ROW(index, ROW_LOST);
        } else if (!row || (OWNER(row) == index && (news == ENDED || STATE(row) == CLAIMED)))
            s->rows[run] = (uint8_t)ROW(index, news);
        if (phase == STARTED)
            *e = entry(OVER, NOT, 0);
        else
            e->dirty = 0;
        if (told && s->znodes[run] == index)
            s->znodes[run] = NOBODY;
    }
}

static void worker_steps(Steps *steps, const State *s, int index, const Rules *rules) {
    const Worker *w = &s->workers[index];
    State *t;
    int busy = 0, dirty = 0;
    for (int run = 0; run < 2 * rules->fires; run++)
        busy = busy || w->runs[run].phase == DECIDED, dirty = dirty || w->runs[run].dirty;
    if (!w->no_zookeeper && !busy) {
        if (w->has_task && s->assigned != index)
            let_go(&yield(steps, s, PLAIN)->workers[index], rules);
        else if (!w->has_task && s->assigned == index)
            taken_over(yield(steps, s, PLAIN), index, rules);
        else if (w->has_task && !w->owns) {
            t = yield(steps, s, PLAIN);
            if (rules->carries_home && !w->no_mysql)
                carried_home(t);
            t->workers[index].owns = 1;
            up_to_date(&t->workers[index]);
        } else if (w->has_task && rules->looks_for_lost && !w->no_mysql) {
            State home = *s;
            if (rules->carries_home)
                carried_home(&home);
            if (with_reruns(&home, &home.workers[index], rules))
                yield(steps, &home, PLAIN);
        }
    }
    claims(steps, s, index, rules);
    starts(steps, s, index, rules);
    for (int run = 0; run < 2 * rules->fires; run++)
        if (w->runs[run].phase == WAITING)
            yield(steps, s, NOT_CALM)->workers[index].runs[run] = entry(SKIPPED, NOT, 1);
    if (!w->no_mysql && dirty)
        reported(yield(steps, s, PLAIN), index, rules);
}

static void all_steps(Steps *steps, const State *s, const Rules *rules) {
    steps->count = 0;
    if (s->due < rules->fires) {
        State *t = yield(steps, s, NOT_CALM);
        t->due++;
        looked(t, 0), looked(t, 1);
    }
    for (int index = 0; index < 2; index++) {
        accidents(steps, s, index, rules);
        leader_steps(steps, s, index, rules);
        if (s->workers[index].mode == UP)
            worker_steps(steps, s, index, rules);
    }
}

/* -------------------------------------------------------------------------------------------- protocol_search.py */

/* Return the first thing that is to be done, once nothing more goes wrong; NULL when all is at rest. */
static const State *next_calm(Steps *steps, const State *s, const Rules *rules) {
    int seen = 0;
    steps->count = 0;
    for (int part = 0; part < 6; part++) {
        int index = part / 3;
        if (part % 3 == 0)
            accidents(steps, s, index, rules);
        else if (part % 3 == 1)
            leader_steps(steps, s, index, rules);
        else if (s->workers[index].mode == UP)
            worker_steps(steps, s, index, rules);
        for (; seen < steps->count; seen++)
            if (steps->steps[seen].kind == PLAIN)
                return &steps->steps[seen].state;
    }
    return NULL;
}

static void healed(State *s, const Rules *rules) {
    for (int index = 0; index < 2; index++) {
        Worker *w = &s->workers[index];
        if (w->mode == DOWN)
            restarted(rules, w);
        w->mode = UP, w->no_mysql = w->no_zookeeper = 0;
        looked(s, index);
    }
    memset(s->left, 0, sizeof s->left);
    s->troubles = 0;
}

static int missing(const State *s, const Rules *rules) {
    for (int fire = 0; fire < s->due; fire++) {
        int one = s->rows[2 * fire], two = s->rows[2 * fire + 1], ran = 0;
        if (!one && !two)
            return UNDECIDED;
        for (int index = 0; index < 2; index++)
            for (int run = 2 * fire; run < 2 * fire + 2; run++) {
                int phase = s->workers[index].runs[run].phase;
                ran = ran || phase == STARTED || phase == OVER;
            }
        int given_up = one && two && STATE(two) == ROW_LOST;
        if (!rules->at_most_once && !ran && !given_up)
            return NOBODY_RUNS;
    }
    for (int run = 0; run < RUNS; run++)
        if (s->rows[run] && STATE(s->rows[run]) == CLAIMED)
            return CLAIM_STAYS;
    if (s->assigned == NOBODY || s->workers[0].has_task + s->workers[1].has_task != 1)
        return NOT_ONE_OWNER;
    return WELL;
}

static uint64_t hash(const Packed *p) {
    uint64_t h = p->shared * 0x9E3779B97F4A7C15u;
    h = (h ^ (h >> 29) ^ p->workers[0]) * 0xBF58476D1CE4E5B9u;
    h = (h ^ (h >> 32) ^ p->workers[1]) * 0x94D049BB133111EBu;
    return h ^ (h >> 31);
}

/* What calm states come to, for those that were asked lately. */
enum { RESTS = 1 << 21 };
typedef struct { Packed key; uint8_t known, kind; } Rest;

static int silence(const State *s, const Rules *rules, Rest *rests) {
    static Steps steps;
    State calm = *s;
    uint64_t way[256];
    int passed = 0, kind = -1;
    healed(&calm, rules);
    Packed keys[256];
    while (kind < 0) {
        if (passed == 256)
            abort();
        Packed key = canonical(&calm);
        keys[passed] = key, way[passed] = hash(&key) % RESTS;
        Rest *rest = &rests[way[passed]];
        if (rest->known && !memcmp(&rest->key, &key, sizeof key)) {
            kind = rest->kind;
            break;
        }
        passed++;
        const State *next = next_calm(&steps, &calm, rules);
        if (next)
            calm = *next;
        else
            kind = missing(&calm, rules);
    }
    for (int i = 0; i < passed; i++)
        rests[way[i]] = (Rest){keys[i], 1, (uint8_t)kind};
    return kind;
}

/* ------------------------------------------------------------------------------------------------ for Python */

/* Return the steps of a state; `after` has room for MOST_STEPS. */
int32_t steps_after(const Rules *rules, const Packed *packed, const uint8_t *left, Packed *after, uint8_t *lefts,
                    uint8_t *broken) {
    static Steps steps;
    State s;
    unpack(packed, &s);
    memcpy(s.left, left, TROUBLES), s.troubles = left[TROUBLES];
    all_steps(&steps, &s, rules);
    for (int i = 0; i < steps.count; i++) {
        after[i] = pack(&steps.steps[i].state), broken[i] = steps.steps[i].broken;
        memcpy(lefts + i * (TROUBLES + 1), steps.steps[i].state.left, TROUBLES);
        lefts[i * (TROUBLES + 1) + TROUBLES] = steps.steps[i].state.troubles;
    }
    return steps.count;
}

int32_t silence_of(const Rules *rules, const Packed *packed) {
    Rest *rests = calloc(RESTS, sizeof *rests);
    State s;
    if (!rests)
        return -1;
    unpack(packed, &s);
    int kind = silence(&s, rules, rests);
    free(rests);
    return kind;
}

/* ------------------------------------------------------------------------------------------------ protocol_deep.py */

typedef struct { uint32_t slot; uint8_t price; } Todo;
typedef struct { Todo *items; uint64_t count, room; } Queue;

static int push(Queue *queue, uint32_t slot, int price) {
    if (queue->count == queue->room) {
        queue->room = queue->room ? queue->room * 2 : 1024;
        Todo *items = realloc(queue->items, queue->room * sizeof *items);
        if (!items)
            return 0;
        queue->items = items;
    }
    queue->items[queue->count++] = (Todo){slot, (uint8_t)price};
    return 1;
}

typedef struct { uint8_t spent[TROUBLES]; uint8_t total; } Price;
typedef unsigned __int128 Prices;
typedef void (*Told)(int32_t level, uint64_t states, uint64_t expanded);

/* Search as DeepSearch does. Returns the number of states; 0 when there is no room. `found` has MOST_BROKEN places, and
 * gets a state before each kind of violation. */
uint64_t search_deep(const Rules *rules, uint32_t slots_log2, uint8_t *is_found, Packed *found, Told told) {
    static Price prices[MOST_PRICES];
    static Prices no_less[MOST_PRICES];
    static int16_t after_price[MOST_PRICES][TROUBLES];
    static Steps steps;
    int count = 0;
    uint64_t states = 0, expanded = 0, slots = 1ull << slots_log2;
    Queue queues[32] = {0};
    for (int a = 0; a <= rules->most[0]; a++)
        for (int b = 0; b <= rules->most[1]; b++)
            for (int c = 0; c <= rules->most[2]; c++)
                for (int d = 0; d <= rules->most[3]; d++)
                    for (int e = 0; e <= rules->most[4]; e++) {
                        if (a + b + c + d + e > rules->troubles)
                            continue;
                        if (count == MOST_PRICES)
                            return 0;
                        prices[count++] = (Price){{(uint8_t)a, (uint8_t)b, (uint8_t)c, (uint8_t)d, (uint8_t)e}, (uint8_t)(a + b + c + d + e)};
                    }
    for (int i = 0; i < count; i++) {
        no_less[i] = 0;
        memset(after_price[i], -1, sizeof after_price[i]);
        for (int j = 0; j < count; j++) {
            int all = 1, more = 0, what = -1;
            for (int k = 0; k < TROUBLES; k++) {
                int by = prices[j].spent[k] - prices[i].spent[k];
                all = all && by >= 0;
                more += by < 0 ? 9 : by, what = by == 1 ? k : what;
            }
            if (all)
                no_less[i] |= (Prices)1 << j;
            if (more == 1)
                after_price[i][what] = (int16_t)j;
        }
    }
    int wide = count > 16;
    Packed *keys = calloc(slots, sizeof *keys);
    uint16_t *narrow_masks = wide ? NULL : calloc(slots, sizeof *narrow_masks);
    Prices *wide_masks = wide ? calloc(slots, sizeof *wide_masks) : NULL;
    Rest *rests = calloc(RESTS, sizeof *rests);
    if (!keys || !rests || !(wide ? (void *)wide_masks : (void *)narrow_masks))
        goto end;
    State s;
    begin(rules, &s);
    Packed first = canonical(&s);
    uint32_t slot = (uint32_t)(hash(&first) & (slots - 1));
    keys[slot] = first, states = 1;
    if (wide) wide_masks[slot] = no_less[0]; else narrow_masks[slot] = (uint16_t)no_less[0];
    push(&queues[0], slot, 0);
    for (int level = 0; level <= rules->troubles; level++) {
        Queue *todo = &queues[level];
        while (todo->count) {
            Todo one = todo->items[--todo->count];
            Packed before = keys[one.slot];
            unpack(&before, &s);
            for (int k = 0; k < TROUBLES; k++)
                s.left[k] = (uint8_t)(rules->most[k] - prices[one.price].spent[k]);
            s.troubles = (uint8_t)(rules->troubles - prices[one.price].total);
            all_steps(&steps, &s, rules);
            expanded++;
            for (int i = 0; i < steps.count; i++) {
                const State *t = &steps.steps[i].state;
                if (steps.steps[i].broken) {
                    if (!is_found[steps.steps[i].broken])
                        is_found[steps.steps[i].broken] = 1, found[steps.steps[i].broken] = before;
                    continue;
                }
                int price = one.price;
                /* Both answers of a claim may be lost: a step costs more than one trouble then. */
                for (int k = 0; k < TROUBLES; k++)
                    for (int spent = t->left[k]; spent < s.left[k]; spent++)
                        price = after_price[price][k];
                Packed key = canonical(t);
                uint64_t at = hash(&key) & (slots - 1);
                /* No state is all zeros in the lesser part: an empty slot has no mask. */
                Prices mask;
                while ((mask = wide ? wide_masks[at] : narrow_masks[at]) && memcmp(&keys[at], &key, sizeof key))
                    at = (at + 1) & (slots - 1);
                if (!mask) {
                    if (++states > slots - slots / 8) {
                        states = 0;
                        goto end;
                    }
                    keys[at] = key;
                    int kind = silence(t, rules, rests);
                    if (kind && !is_found[kind])
                        is_found[kind] = 1, found[kind] = key;
                } else if (mask >> price & 1)
                    continue;
                if (wide) wide_masks[at] = mask | no_less[price]; else narrow_masks[at] = (uint16_t)(mask | no_less[price]);
                if (!push(&queues[prices[price].total], (uint32_t)at, price)) {
                    states = 0;
                    goto end;
                }
            }
        }
        free(todo->items), todo->items = NULL, todo->room = 0;
        told(level, states, expanded);
    }
end:
    for (int i = 0; i < 32; i++)
        free(queues[i].items);
    free(keys), free(narrow_masks), free(wide_masks), free(rests);
    return states;
}
