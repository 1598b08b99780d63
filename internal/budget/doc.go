// Package budget decides when traffic may exceed a quota because the provider
// will not bill the excess. It takes times and sizes and returns verdicts; it uses
// no clocks, files or frames, and allocates nothing after New.
//
// # The rule
//
// A provider that bills the 95th percentile takes a sample every five minutes,
// discards the top 5% of a cycle's samples and bills the largest of the rest.
// A cycle of 30 days has 8,640 samples, of which ⌊8640·5%⌋ = 432 are free. As long
// as no more than those exceed the quota, the bill stays within the commit.
//
// Only the provider knows when its poller runs. So windows are counted for every
// phase the poller can have. Time is divided into slots of a sixtieth of a window
// (5 s), and window k stands for all spans of a window's length that begin
// inside slot k. Such a span touches only slots k to k+60, 61 of them.
// It counts as over
//
//   - when its slots up to some slot hold more than the quota, and
//   - that slot has bytes for which the caller's own window had no room.
//
// The second condition is sound. Suppose a span holds more than the quota. When its
// last byte passed, the span's length before that byte was already full. The
// caller's own sliding window keeps every such span within the quota, so it had no
// room for the byte. The caller reported the byte as beyond, and by then the slots
// up to that one held at least as much as the span. Without the second condition, a
// link that the caller's own window keeps exactly full would always count as
// over, because any 61 of its slots hold more than the quota.
//
// Callers give Count the bytes of a slot and whether any were beyond. A budget can
// be rebuilt from a record of these, such as a ledger, and gates that share the
// record compute the same state. The counts of recent slots may still grow
// (late), because gates do not run in step.
//
// There may be two lanes, such as both directions where the provider bills the larger
// one of each sample. A window is over if either lane is, and then free for the other.
//
// Windows k, k+60, k+120… are one phase: they are the provider's samples if it
// polls in those slots. Each phase may use as many windows as are free:
//
//   - In a cycle of length T, at least ⌊T/W⌋-1 windows begin and also end,
//     whatever the phase (see FreeWindows): 8,639 in 30 days, of which 431 are
//     free. A provider with the least favourable phase discards that many.
//   - A window that straddles the start or the end of a cycle is counted in
//     both cycles and must be free in both, as the provider may put it in either.
//   - Start and end are instants, so an hour that daylight saving time removes
//     or adds makes the cycle shorter or longer.
//
// # What a burst costs
//
// Suppose a link is just full, except that bytes pass freely in slots a to b. All
// windows that touch one of these slots are over: those from a-60 to b,
// that is L+60 windows for a run of L slots, or ⌊L/60⌋+1 of each phase and one
// more of some. Any burst costs the first window; every further five minutes cost
// another one. If the link is idle before and after the burst,
// windows that hold little of the burst stay under the quota, and it costs less:
// a burst that exceeds the quota for an instant costs each phase one window, and
// so does a single sample of less than twice the quota.
//
// Example: the quota is 600 MB in 5 minutes, 10 MB a slot, and the link was idle.
// Then 30 MB a slot arrive for 60 slots: 1,800 MB. The gate's own window passes 20
// slots' worth, and the budget decides on the rest. In slot 20, window k=-40 (slots
// -40 to 20) is the first over quota, as all earlier windows have ended. In slot 59,
// at the end, all windows up to k=39 are over; that one has slots 39 to 59, 630 MB.
// So 80 windows are over, -40 to 39: two each for the phases of 20 windows, one
// each for the other 40. Within the quota, 600 MB would have passed instead of 1,800.
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
//
// # Limits
//
// The guarantee covers traffic that passes. Bytes that were billed before the gate
// could drop them (inbound), and control frames that pass although there is no room, are
// counted, and Stats.Left may become negative; a window that is over without having
// been free makes no room for more. A provider that loses samples discards
// fewer: see Config.Reserve. The budget cannot count bytes it was not told of, such
// as those from before New: see Count.
package budget
