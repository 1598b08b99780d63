// Package budget decides when traffic may exceed a quota because the provider
// will not bill the excess. It takes times and sizes and returns verdicts; it uses
// no clocks, files or frames, and allocates nothing after New.
//
// # Samples
//
// A provider that bills the 95th percentile reads a counter every five minutes, takes
// the bytes between two polls as a sample, discards the top 5% of a cycle's samples and
// bills the largest of the rest. As long as no more samples than those exceed the
// quota (the commit times five minutes), the bill stays within the commit.
//
// Only the provider knows when it polls, and no poller is exact. Let W be the window and
// J the jitter. If polls are at most J early or late on an even grid of any phase,
// samples are from W-2J to W+2J long. The grid may also drift: its interval may
// differ from W by d if polls are within J-d/2 of it. Two facts hold for all of these pollers,
// and the promise uses nothing else:
//
//   - Each sample is W-2J to W+2J long.
//   - Samples do not overlap.
//
// A sample may be billed as its bytes divided by its length, or by W. It exceeds
// the commit if it has more than quota·length/W bytes in the first case and more than the
// quota in the second. So:
//
//	A sample of up to W is over only if it has more than quota·(1-2J/W) bytes: the limit.
//	A longer one is over only if it has more than the quota.
//
// # The gate's own window
//
// The caller keeps all spans of W within the limit, and all spans of W+2J within the
// quota. Then no sample is over. Smooth traffic may use 1-2J/W of the commit: 98.7% for
// a jitter of 2 s. A gate that kept only spans of W within the quota would not do: it
// may pass the quota in 296 s, which is 101.4% of the commit.
//
// # Free windows
//
// With 30 days and J = 0 there are at least 8,639 samples whatever the phase, of
// which ⌊8639·5%⌋ = 431 are free. A grid may be slower by J, so in general
// ⌊T/(W+J)⌋-1 samples fit into a cycle of length T (see freeWindows).
//
// Bytes that do not fit into the caller's own window pass only where samples
// may be over. Which ones are over depends on the polls. So the budget counts the
// largest number of disjoint spans that are over: no poller has more. The
// spans are of about one length, and for these the greedy rule of interval
// scheduling is optimal: take the span that begins first, then the first that
// begins after its end, and so on.
//
// The budget knows the bytes of slots of W/60 (5 s), not of instants. Let window k stand
// for all samples that begin in slot k. They touch at most the slots k to k+span-1, and the
// next sample of the same poller begins in slot k+gap or later, where
//
//	span = ⌈(W+2J)/slot⌉+1    61 slots for J = 0, and 62 for 2 s
//	gap  = ⌊(W-2J)/slot⌋      60 slots for J = 0, and 59 for 2 s
//
// Window k counts as over
//
//   - when its slots up to some slot hold more than the limit, and
//   - that slot has bytes for which the caller's own window had no room.
//
// The second condition is sound. Suppose that a sample is over. When the byte passed that
// took it over, a span of W or W+2J before that byte was full. So the caller's own
// window had no room for the byte, and the caller reported it as beyond; by then the slots
// up to that one held at least as much as the sample. Without the second condition, a
// link that the caller's own window keeps full would always count as over, because
// its slots, which are more than the window, hold more than the limit.
//
// So if a poller has the samples k1 < k2 < … over, all of these windows count as over, and each is
// at least gap after the one before. The greedy rule takes the first window that is
// over, then the first that is over at least gap later, and so on. It finds the longest
// such chain, so the chain is at least as long as any poller's. This is why slots may
// be coarse: they can only lengthen the chain.
//
// Windows may be counted as they happen. A window that is over remains so, and a later
// slot takes only later windows over, so the chain only grows. Before bytes pass
// beyond the caller's window in a slot, the budget takes all windows that contain
// the slot as over, extends the chain through them, and finds the first window with which
// it would have more than the free windows. From that window on, slots together stay within
// the limit (see Limit), so it does not go over.
//
//   - Late counts: gates do not run in step, and the counts of recent slots may grow
//     (Late). The windows that they could take over count as over in that step. Windows
//     join the chain for good only when no count can change them.
//   - Cycles: each has its own chain. A window that touches two cycles must be free in
//     both, as the provider may put the sample in either. Start and end are instants,
//     so an hour that daylight saving time removes or adds changes the length.
//   - Lanes: a window is over if any of its lanes is (both directions, where the
//     provider bills the larger one of each sample), and then free for the others.
//   - Several gates, restarts: the state follows from the counts of slots and whether any
//     bytes were beyond. Gates that share a record of these, such as a ledger, agree, and
//     a budget can be rebuilt from it.
//   - A known phase (Poller.Known): only windows with a poll in their first slot count. Then
//     most bursts cost one window less.
//
// # What is not promised
//
// A poll that is later than the jitter makes one sample longer and the next one shorter.
// A long sample may hold two bursts, and a short one, of 180 s, the quota of 300 s. So
// each such poll may put two more samples over the quota: keep two free windows for
// each (Config.Reserve), and the promise holds. All other samples are as above. A
// provider that loses a sample bills a long one, or discards fewer: one for every
// twenty that are lost.
//
// The promise covers traffic that passes. Bytes that were billed before the gate
// could drop them (inbound), and control frames that pass although there is no room, are
// counted, and Stats.Left may become negative; a window that is over without having
// been free makes no room for more. The budget cannot count bytes it was not told of, such
// as those from before New: see Count.
//
// # When the commit is lost
//
// Traffic before the gate began, or inbound, may have put more samples over the quota than
// are free, for any poller. Then more than the commit will be billed, and to hold to it
// would gain nothing. So the budget keeps, for each of the phases k mod 60 in which polls may be, the highest
// samples of the cycle, one more than the provider can discard. A sample of slot k counts with
// the fewest bytes that the shortest one can have. The provider bills the least of these or more, and
// the least over all phases is the level that is spent (see Quota). The caller holds to the
// larger of commit and level, so its samples never raise the level.
//
// The level is exact if bytes are spread evenly over a slot and the poller keeps its phase. A poller that
// drifts may bill a little less.
//
// No sample that touches the next cycle may be over the commit. So in the last window of the
// cycle the caller holds to both: to the level, and from the first of these samples on to the
// commit (see Limit). Config.Hard keeps to the commit.
//
// In a first cycle that has begun before the budget, the samples until then are not known. It
// spends only the share of the free windows that is left, unless Config.Whole is set.
//
// # What a burst costs
//
// Suppose a link is just full, except that bytes pass freely in slots a to b. All
// windows that touch one of these slots are over: those from a-span+1 to b. A run of L
// windows costs L+1, and one more now and then. Any burst costs the first window; every
// further five minutes cost another one. If the link is idle before and after the burst,
// windows that hold little of the burst stay under the quota, and it costs less:
// a burst that exceeds the quota for an instant costs one window, or two, and so
// does a single sample of less than twice the quota.
//
// After the burst, the windows that went over are spent. So Limit measures
// further traffic by the first window that is not over, and the link does not
// have to stay silent until the burst has left the caller's own window.
//
// # Which bursts
//
// Free windows are few. The budget compares experts, each a simple rule: let a burst
// run from when the forecast excess of a window is x times the quota until it is half
// of that. Every expert is simulated on all offered demand, with the cost as above,
// which gives the bytes it would have gained and the windows it would have spent so
// far. The rest of the cycle is predicted from two pasts, this cycle so far and the
// last one. Each past predicts how much every expert would gain in the rest
// with the windows that are left, as a share of the best expert's gain. The
// two shares are averaged; the weight of the last cycle falls as this one proceeds. The
// budget follows the best expert and chooses again every few slots. So it keeps windows
// for the best bursts it expects, and spends them when the cycle is nearly
// over. A run continues a little longer while the slots that it frees held more
// than those it adds to the window.
//
// This works well where a past is a guide. A sudden flood finds only the windows
// that are left, and if bursts keep getting smaller, waiting for a better one loses
// to first come, first served.
package budget
