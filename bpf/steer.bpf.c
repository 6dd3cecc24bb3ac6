// SPDX-License-Identifier: MIT OR Apache-2.0
//
// Chooses the slot for a connection, at the moment it arrives.
//
// One instance serves one listener: its slots form one SO_REUSEPORT group, and the primary attaches
// this program to it (BPF_PROG_TYPE_SK_REUSEPORT). The functions are those of phalanx-core/src/policy,
// number for number; tests hold the two against each other.
//
// INVARIANTS
// - A position that is not in the plan is never chosen. A plan is replaced by one 64-bit store, and a
//   choice that was made by a plan which has been replaced meanwhile is made again.
// - Whatever workers write to the board, a choice ends and is a position of the plan.
// - Every loop has a bound.
//
// The layouts below are those of phalanx-sys/src/{steering/memory.rs,scoreboard.rs,scoreboard/row.rs}.
//
// `just bpf` compiles this file to steer.bpf.o, which is checked in: building phalanx needs no clang.

#include <linux/types.h>
#include <linux/bpf.h>

#define SECTION(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))
#define ONCE(place) (*(volatile __typeof__(place) *)&(place))

#define POSITIONS 4096 // POSITIONS_MAX
#define ORDER 16384    // ORDER_MAX
#define SCAN 64        // SCAN_MAX
#define ATTEMPTS 8     // of source-hash
#define STEPS 32       // of a consistent hash
#define RESPONSE_MAX (1u << 30)
#define OUTSTANDING_MAX (1u << 20)
#define UNPROVEN (1ull << 54)
#define TICK_SHIFT 20  // a tick is 2^20 ns, about a millisecond
#define TICK_US_SHIFT 10 // a tick is about 2^10 us
#define HALVING 4      // an idle position's response time halves every 2^4 ticks
#define SWITCHES 4     // so often a choice is made again because the plan was replaced

#define AF_INET 2
#define AF_INET6 10
#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define TCP_SYN 0x02
#define TCP_ACK 0x10

// --- what is shared with user space ----------------------------------------------------------------

enum rule {
	BY_TURNS = 0, // round-robin, weighted
	BY_LEAST_CONNECTIONS = 1,
	BY_SCORE = 2, // fastest
	BY_TWO_CHOICES = 3,
	BY_SOURCE = 4,
	BY_CHANCE = 5,
	BY_CONNECTION = 6, // none: by the kernel's own hash
};

// What one position has received from this listener.
struct tally {
	__u64 chosen;   // new connections
	__u64 migrated; // connections that waited in a slot when it was closed
};

struct group {
	// bit 0: which of the two plans is in force; 1..8 rule; 8..24 number of turns;
	// 24..40 span of positions; 40..64 counts the switches
	__u64 control;
	__u64 probe; // the source port of a connection that is meant for the slot behind the last position; or 0
	__u64 reserved[6];
	__u64 cursor[2]; // of each plan: the turn that comes next, not yet reduced
	__u64 unsteered; // connections left to the kernel's hash: no eligible position has a slot
	__u64 reserved2[5];
	__u64 eligible[2][POSITIONS / 64];
	struct tally tallies[POSITIONS];
	__u16 order[2][ORDER];
};

// The load of one position, whichever the listener: what its workers write, in a cache line of its own.
// The two lanes are a worker and its successor.
struct row {
	__s32 closed; // connections that were closed; what was given and not closed is open
	__s32 held[2];
	__s32 outstanding[2];
	__u32 response_us;
	__u32 response_tick;
	__u32 busy_tick; // when there came to be something to answer
	__u32 reserved[8];
};

struct board {
	__s32 given[POSITIONS]; // connections that were chosen for it; written here and by the primary alone
	struct row rows[POSITIONS];
};

struct map_definition {
	__u32 type;
	__u32 key_size;
	__u32 value_size;
	__u32 max_entries;
	__u32 map_flags;
};

struct map_definition slots SECTION("maps") = {
	.type = BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(__u64),
	.max_entries = POSITIONS + 1,
};

struct map_definition group SECTION("maps") = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct group),
	.max_entries = 1,
	.map_flags = BPF_F_MMAPABLE,
};

struct map_definition board SECTION("maps") = {
	.type = BPF_MAP_TYPE_ARRAY,
	.key_size = sizeof(__u32),
	.value_size = sizeof(struct board),
	.max_entries = 1,
	.map_flags = BPF_F_MMAPABLE,
};

static void *(*const map_lookup)(void *map, const void *key) = (void *)BPF_FUNC_map_lookup_elem;
static __u64 (*const ktime)(void) = (void *)BPF_FUNC_ktime_get_ns;
static __u32 (*const random)(void) = (void *)BPF_FUNC_get_prandom_u32;
static long (*const load_bytes)(const void *ctx, __u32 offset, void *to, __u32 len,
				__u32 from) = (void *)BPF_FUNC_skb_load_bytes_relative;
static long (*const select_slot)(struct sk_reuseport_md *ctx, void *map, void *key,
				 __u64 flags) = (void *)BPF_FUNC_sk_select_reuseport;

// --- the client ------------------------------------------------------------------------------------

// SplitMix64, as phalanx-core/src/rng.rs has it.
INLINE __u64 next(__u64 *state)
{
	__u64 mixed = *state += 0x9E3779B97F4A7C15ull;
	mixed = (mixed ^ (mixed >> 30)) * 0xBF58476D1CE4E5B9ull;
	mixed = (mixed ^ (mixed >> 27)) * 0x94D049BB133111EBull;
	return mixed ^ (mixed >> 31);
}

INLINE __u64 mixed(__u64 number)
{
	return next(&number);
}

INLINE __u64 client_of(__u64 high, __u64 low)
{
	return mixed(mixed(high) ^ low);
}

INLINE __u64 client_v4(__be32 address)
{
	return client_of(0, 0xffff00000000ull | __builtin_bswap32(address));
}

INLINE __u64 client_v6(const __be32 *address)
{
	__u64 high = (__u64)__builtin_bswap32(address[0]) << 32 | __builtin_bswap32(address[1]);
	__u64 low = (__u64)__builtin_bswap32(address[2]) << 32 | __builtin_bswap32(address[3]);
	return client_of(high, low);
}

// The hash of the client's address; 0 if it cannot be told.
INLINE __u64 client(struct sk_reuseport_md *ctx)
{
	struct bpf_sock *migrating = ctx->migrating_sk;
	__be32 address[4] = {};

	if (migrating) {
		// A connection that moves comes without its packets.
		address[0] = migrating->dst_ip6[0];
		address[1] = migrating->dst_ip6[1];
		address[2] = migrating->dst_ip6[2];
		address[3] = migrating->dst_ip6[3];
		// A handshake of IPv4 on a dual-stack slot has the family of the slot.
		if (migrating->family == AF_INET ||
		    !(address[0] | address[1] | address[2] | address[3]))
			return client_v4(migrating->dst_ip4);
		return client_v6(address);
	}
	if (ctx->eth_protocol == __builtin_bswap16(ETH_P_IP)) {
		if (load_bytes(ctx, 12, address, 4, BPF_HDR_START_NET))
			return 0;
		return client_v4(address[0]);
	}
	if (ctx->eth_protocol == __builtin_bswap16(ETH_P_IPV6)) {
		if (load_bytes(ctx, 8, address, 16, BPF_HDR_START_NET))
			return 0;
		return client_v6(address);
	}
	return 0;
}

// Does this packet open a connection? Others reach a listener too: the last step of a handshake by
// SYN cookie, and what strays in from connections of the past.
INLINE int opens(struct sk_reuseport_md *ctx)
{
	const __u8 *tcp = ctx->data;

	if (ctx->data + 14 > ctx->data_end)
		return 0;
	return (tcp[13] & (TCP_SYN | TCP_ACK)) == TCP_SYN;
}

// Is it the primary, who asks a worker that gets no connections yet whether it serves?
INLINE int probes(struct sk_reuseport_md *ctx, __u64 port)
{
	const __u8 *tcp = ctx->data;

	if (!port || ctx->migrating_sk || ctx->data + 2 > ctx->data_end)
		return 0;
	return (__u64)(tcp[0] << 8 | tcp[1]) == port;
}

// --- the plan --------------------------------------------------------------------------------------

struct plan {
	struct group *group;
	__u64 control;
	__u32 which;
};

// The verifier walks through every round of a loop, and through whatever comes after it once for each
// state that it can be left in. So that there is one, loops
// - read their bound anew in each round instead of remembering what earlier rounds have taught of it,
// - calculate instead of branching.

// How many turns there are.
INLINE __u32 count_of(const struct plan *plan)
{
	return ONCE(plan->group->control) >> 8 & 0xffff;
}

// Keeps the compiler from turning a calculation back into a branch.
#define OPAQUE(value) asm volatile("" : "+r"(value))

// The turn after this one.
INLINE __u32 turn_after(const struct plan *plan, __u32 turn)
{
	__u32 after = turn + 1;
	__u32 wraps = (__s32)(after - count_of(plan)) >> 31; // all ones while it is below

	OPAQUE(wraps);
	return after & wraps;
}

// The smaller of two numbers below 2^63.
INLINE __u64 smaller(__u64 one, __u64 other)
{
	__s64 gap = one - other;
	__s64 negative = gap >> 63;

	OPAQUE(negative);
	return other + (gap & negative);
}

// `number` reduced to a turn. There is one: the program has made sure.
INLINE __u32 turn_of(const struct plan *plan, __u64 number)
{
	return number % (__u32)(plan->control >> 8 & 0xffff);
}

// Takes the plan that is in force; 0 if nobody is eligible by it.
INLINE int in_force(struct plan *plan)
{
	plan->control = ONCE(plan->group->control);
	plan->which = plan->control & 1;
	return (plan->control >> 8 & 0xffff) != 0;
}

// Positions are below this.
INLINE __u32 span_of(const struct plan *plan)
{
	return ONCE(plan->group->control) >> 24 & 0xffff;
}

INLINE __u32 position_at(const struct plan *plan, __u32 turn)
{
	return plan->group->order[plan->which][turn & (ORDER - 1)] & (POSITIONS - 1);
}

INLINE int is_eligible(const struct plan *plan, __u32 position)
{
	__u32 word = (position / 64) & (POSITIONS / 64 - 1);
	return plan->group->eligible[plan->which][word] >> (position % 64) & 1;
}

// --- the load --------------------------------------------------------------------------------------

INLINE __u32 at_least_zero(__s32 value)
{
	__s32 negative = value >> 31;

	OPAQUE(negative);
	return value & ~negative;
}

INLINE __u32 open_of(const struct board *board, __u32 position)
{
	// Both count on for ever.
	return at_least_zero((__u32)ONCE(board->given[position]) -
			     (__u32)ONCE(board->rows[position].closed));
}

// All ones for 0, else none, of a number below 2^63.
INLINE __u64 if_zero(__u64 number)
{
	__s64 mask = (__s64)(number - 1) >> 63;

	OPAQUE(mask);
	return mask;
}

// The larger of two numbers below 2^62.
INLINE __u64 larger(__u64 one, __u64 other)
{
	return one + other - smaller(one, other);
}

// What awaits an answer: requests, and what was chosen and not yet accepted.
INLINE __u64 outstanding_of(const struct board *board, __u32 position)
{
	const struct row *row = &board->rows[position];
	__s64 held = (__u64)at_least_zero(ONCE(row->held[0])) + at_least_zero(ONCE(row->held[1]));
	__u64 outstanding = (__u64)at_least_zero(ONCE(row->outstanding[0])) +
			    at_least_zero(ONCE(row->outstanding[1]));
	__s64 waiting = (__s64)open_of(board, position) - held;
	__s64 negative = waiting >> 63;

	OPAQUE(negative);
	return outstanding + (waiting & ~negative);
}

INLINE __u64 score_of(const struct board *board, __u32 position, __u32 now)
{
	const struct row *row = &board->rows[position];
	__u64 outstanding = outstanding_of(board, position);
	__u64 idle = if_zero(outstanding);
	__u64 age = at_least_zero(now - ONCE(row->response_tick));
	__u64 response = ONCE(row->response_us);
	__u64 unproven = if_zero(response);

	// Nobody will hear of an idle position's response time again until it is used.
	response >>= smaller(age >> HALVING, 32) & idle;
	// What awaits its answer has taken so long already.
	__u64 waited = smaller(age, at_least_zero(now - ONCE(row->busy_tick))) << TICK_US_SHIFT;
	response = larger(response, waited & ~idle & ~unproven);

	response = smaller(response, RESPONSE_MAX);
	outstanding = smaller(outstanding, OUTSTANDING_MAX);
	return response * (outstanding + 1) + (unproven & ~idle & (UNPROVEN + outstanding));
}

// --- the policies ----------------------------------------------------------------------------------

// Each answers with a turn, except for source-hash, which knows the position.

INLINE __u32 by_turns(const struct plan *plan)
{
	return turn_of(plan, __sync_fetch_and_add(&plan->group->cursor[plan->which], 1));
}

INLINE __u32 by_cost(const struct plan *plan, const struct board *board, enum rule rule)
{
	__u32 begin = turn_of(plan, ONCE(plan->group->cursor[plan->which]));
	__u32 now = rule == BY_SCORE ? ktime() >> TICK_SHIFT : 0;
	__u64 best = (1ull << 63) - 1; // cost, and in the lowest byte how many turns ahead
	__u32 turn = begin;

	for (__u32 ahead = 0; ahead < SCAN; ahead++) {
		if (ahead >= count_of(plan))
			break;
		__u32 position = position_at(plan, turn);
		__u64 cost = rule == BY_SCORE ? score_of(board, position, now) :
						open_of(board, position);
		best = smaller(cost << 8 | ahead, best);
		turn = turn_after(plan, turn);
	}
	turn = turn_of(plan, begin + (best & (SCAN - 1)));
	// A round further on, so that user space can tell it from where the plan began.
	ONCE(plan->group->cursor[plan->which]) = (__u64)turn + 1 + (plan->control >> 8 & 0xffff);
	return turn;
}

INLINE __u32 by_two_choices(const struct plan *plan, const struct board *board)
{
	__u32 count = plan->control >> 8 & 0xffff;
	__u32 first = random() % count;
	__u32 second = random();

	if (count < 2)
		return 0;
	second %= count - 1;
	if (second >= first)
		second++;
	if (open_of(board, position_at(plan, second)) < open_of(board, position_at(plan, first)))
		return second;
	return first;
}

INLINE __u32 jump(const struct plan *plan, __u64 key)
{
	__u64 bucket = 0;
	__u64 after = 0;

	for (__u32 step = 0; step < STEPS; step++) {
		if (after >= span_of(plan))
			break;
		bucket = after;
		key = key * 2862933555777941757ull + 1;
		after = ((bucket + 1) << 31) / ((key >> 33) + 1);
	}
	return bucket;
}

INLINE __u32 by_source(const struct plan *plan, __u64 client)
{
	__u64 keys = client;

	for (__u32 attempt = 0; attempt < ATTEMPTS; attempt++) {
		__u32 position = jump(plan, next(&keys));
		if (is_eligible(plan, position))
			return position;
	}
	return position_at(plan, turn_of(plan, client));
}

// --- the program -----------------------------------------------------------------------------------

struct choice {
	__u32 turn; // where others are looked for if the position has no slot
	__u32 position;
};

INLINE struct choice choose(const struct plan *plan, const struct board *board, __u32 rule,
			    struct sk_reuseport_md *ctx, int counts)
{
	struct choice choice = {};

	if (rule == BY_SOURCE) {
		__u64 hash = client(ctx);
		choice.turn = turn_of(plan, hash);
		choice.position = by_source(plan, hash);
		return choice;
	}
	if (rule == BY_CONNECTION || !counts)
		choice.turn = turn_of(plan, ctx->hash);
	else if (rule == BY_LEAST_CONNECTIONS)
		choice.turn = by_cost(plan, board, BY_LEAST_CONNECTIONS);
	else if (rule == BY_SCORE)
		choice.turn = by_cost(plan, board, BY_SCORE);
	else if (rule == BY_TWO_CHOICES)
		choice.turn = by_two_choices(plan, board);
	else if (rule == BY_CHANCE)
		choice.turn = turn_of(plan, random());
	else
		choice.turn = by_turns(plan);
	choice.position = position_at(plan, choice.turn);
	return choice;
}

// The position has one more connection.
INLINE void count(struct board *board, __u32 position, __u32 rule)
{
	if (rule == BY_SCORE && outstanding_of(board, position) == 0)
		ONCE(board->rows[position].busy_tick) = ktime() >> TICK_SHIFT;
	__sync_fetch_and_add(&board->given[position], 1);
}

SECTION("sk_reuseport/migrate")
int steer(struct sk_reuseport_md *ctx)
{
	__u32 zero = 0;
	struct group *shared = map_lookup(&group, &zero);
	struct board *loads = map_lookup(&board, &zero);
	struct plan plan = { .group = shared };
	struct choice choice = {};
	int migrates = ctx->migrating_sk != 0;
	int counts = migrates || opens(ctx);

	if (!shared || !loads)
		return SK_PASS;
	if (probes(ctx, ONCE(shared->probe))) {
		__u32 probed = POSITIONS;

		if (select_slot(ctx, &slots, &probed, 0) == 0)
			return SK_PASS;
	}
	if (!in_force(&plan))
		goto unsteered;
	choice = choose(&plan, loads, plan.control >> 1 & 0x7f, ctx, counts);
	for (__u32 switches = 0; switches < SWITCHES; switches++) {
		if (ONCE(shared->control) == plan.control)
			break;
		// The plan was replaced in the meantime. So short a moment needs no policy.
		if (!in_force(&plan))
			goto unsteered;
		choice.turn = turn_of(&plan, ctx->hash);
		choice.position = position_at(&plan, choice.turn);
	}

	for (__u32 tried = 0; tried < SCAN; tried++) {
		__u32 position = choice.position & (POSITIONS - 1);
		if (select_slot(ctx, &slots, &position, 0) == 0) {
			// The verifier forgets a bound when the key's address is taken.
			position &= POSITIONS - 1;
			if (counts)
				count(loads, position, plan.control >> 1 & 0x7f);
			if (migrates)
				__sync_fetch_and_add(&shared->tallies[position].migrated, 1);
			else if (counts)
				__sync_fetch_and_add(&shared->tallies[position].chosen, 1);
			return SK_PASS;
		}
		choice.turn = turn_after(&plan, choice.turn);
		choice.position = position_at(&plan, choice.turn);
	}
unsteered:
	// Nobody could have it now. A queue of the group keeps it until somebody can.
	if (counts)
		__sync_fetch_and_add(&shared->unsteered, 1);
	return SK_PASS;
}

char terms[] SECTION("license") = "MIT";
