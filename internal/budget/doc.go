// Package budget decides when traffic may go over a quota because the provider
// will not bill it. It is given times and sizes and returns verdicts; it knows
// nothing of clocks, files or frames, and allocates nothing once it is made.
//
// # The rule
//
// A provider who bills the 95th percentile takes a sample every five minutes,
// throws the top 5% of a cycle's samples away and bills the largest that is
// left. A cycle of 30 days has 8,640 samples, of which ⌊8640·5%⌋ = 432 are
// free. As long as no more than those hold more than the quota, the bill is at
// or under the commit.
//
// Nobody but the provider knows when his poller looks. So windows are counted
// for every phase it can have. Time is cut into slots of a sixtieth of a window
// (5 s), and window k stands for all spans of a window's length that begin
// inside slot k. Such a span touches slots k to k+60 and no other, 61 of them.
// It counts as over
//
//   - when those of its slots up to some slot hold more than the quota, and
//   - bytes passed in that slot that the caller's own window had no room for.
//
// The second is sound: if a span holds more than the quota, then the last byte
// in it passed when the span's length before it was full already, so the
// caller's own sliding window, which lets pass what keeps every such span within
// the quota, cannot have allowed it. The caller told of that byte that it was
// beyond, and then the slots up to its own held at least what the span did. And a
// link that is kept exactly full by the caller's own window has 61 slots over the
// quota all the time, which without the second would count.
//
// What is said of a slot, by Count, are its bytes and whether any was beyond. Who
// writes that down, as a ledger does, can find all that a budget knows again, and
// several who share what was written find the same. Slots that are over may still
// become fuller for a while (late), as not all who count have the same pace.
//
// With two lanes, such as both directions where the larger one of each sample is
// billed, a window is over if one of them is, and then free for the other.
//
// Windows k, k+60, k+120… are one phase: they are the provider's samples if he
// looks in those slots. A phase may use as many windows as are free, and no
// phase more:
//
//   - In a cycle of length T begin at least ⌊T/W⌋-1 windows that end in it,
//     whatever the phase (see FreeWindows): 8,639 in 30 days, of which 431 are
//     free. It is those that a provider of the most unlucky phase throws away.
//   - A window that straddles the begin or the end of a cycle is counted in
//     both cycles, and must be free in both, wherever the provider puts it.
//   - Begin and end are instants, so that the hour that daylight saving takes
//     or gives is just a shorter or a longer cycle.
//
// # What a burst costs
//
// Let bytes pass freely in slots a to b, after and before a link that is just
// full. Over are all windows that touch one of these slots: those from a-60 to b,
// that is L+60 of them for a run of L slots, or ⌊L/60⌋+1 of each phase and one
// more of some. The first window is the price of being there at all; every
// further five minutes cost another one. If the link was idle before and is after it,
// windows that hold little of the burst stay under the quota, and it costs less:
// one that exceeds the quota for an instant costs each phase one window, and
// a single sample of less than twice the quota, too.
//
// Example: the quota is 600 MB in 5 minutes, 10 MB a slot, and nothing came
// before. 30 MB a slot come for 60 slots: 1,800 MB. The gate passes 20 slots'
// worth, and then asks. In slot 20 window k=-40, the slots from -40 to 20, is the first
// that goes over (all earlier ones end too soon), and at the end, in slot 59,
// those up to k=39, which has slots 39 to 59, 630 MB. So windows -40 to 39 are
// over, 80 of them: two for the phases of 20 windows, one for the other 40. With the
// quota kept, 600 MB would have passed instead of 1,800.
//
// After the burst ends the windows that went over are lost anyway. So what may
// pass is measured by the first window that is not over (Limit), and the link is
// not dark until the burst has left the caller's own window.
//
// # Which bursts
//
// Free windows are few. Experts, each a simple rule (let a burst run as soon as
// the forecast excess of a window is x times the quota, until it is half of that),
// are tried on paper on all demand that is offered, with the cost as above: the
// bytes that they would have gained and the windows that they would have spent so
// far. The rest of the cycle may be like this cycle so far, or like the last one.
// Each of these pasts tells how much every expert would gain in the rest with the
// windows that are left, as a share of the best expert's gain, and the two are
// averaged, the last cycle with less weight the more of this one is over. The best
// expert is followed, until a few slots later another is better. So windows are kept
// for the best bursts that are to be expected, and spent when the cycle is nearly
// over. A run goes on a little longer where the slots that it frees held more than
// the ones that are added to the window.
//
// This does well where a past is a guide. A flood that nothing announces finds
// only the windows that are left, and if bursts get smaller all the time,
// waiting for a better one loses to first come, first served.
//
// # Limits
//
// The promise is about what passes. What was billed before it could be dropped
// (inbound), and control frames that are passed although there is no room, are
// counted, and Stats.Left may become negative; a window that is over without having
// been free to be makes no room for more. A provider who loses samples has fewer
// to throw away: Config.Reserve. What is not known to the budget, such as bytes
// before it was made, it cannot count: see Count.
package budget
