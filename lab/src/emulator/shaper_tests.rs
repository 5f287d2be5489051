//! Laws of one link, over random parameters and arrivals.

use proptest::prelude::*;

use super::*;

fn link(params: LinkParams) -> Shaper {
    Shaper::new(params, Random::for_pair(7, 0, 1))
}

/// Arrivals as (gap to the previous one in ns, frame length).
fn arrivals() -> impl Strategy<Value = Vec<(u64, u32)>> {
    prop::collection::vec((0_u64..200_000, 42_u32..1515), 1..300)
}

fn run(shaper: &mut Shaper, arrivals: &[(u64, u32)]) -> Vec<(u64, u32, Fate)> {
    let mut now = 1_000;
    let mut fates = Vec::new();
    for (gap, length) in arrivals {
        now += gap;
        fates.push((now, *length, shaper.offer(now, *length)));
    }
    fates
}

proptest! {
    #[test]
    fn never_earlier_than_the_delay(
        arrivals in arrivals(), delay_us in 0_u64..50_000, jitter_us in 0_u64..5_000,
        rate in prop::option::of(1_000_000_u64..10_000_000_000),
    ) {
        let mut params = LinkParams::with_delay(Duration::from_micros(delay_us));
        params.jitter = Duration::from_micros(jitter_us);
        params.rate_bits_per_s = rate;
        for (offered, _, fate) in run(&mut link(params), &arrivals) {
            if let Fate::Deliver(due) = fate {
                prop_assert!(due >= offered + delay_us * 1_000);
                if rate.is_none() {
                    prop_assert!(due <= offered + (delay_us + jitter_us) * 1_000);
                }
            }
        }
    }

    #[test]
    fn in_order_without_jitter(
        arrivals in arrivals(), loss in 0.0_f64..0.5,
        rate in prop::option::of(1_000_000_u64..10_000_000_000),
    ) {
        let mut params = LinkParams::with_delay(Duration::from_millis(3));
        params.rate_bits_per_s = rate;
        params.loss = loss;
        let due: Vec<u64> = run(&mut link(params), &arrivals).into_iter().filter_map(|(_, _, fate)| match fate {
            Fate::Deliver(due) => Some(due),
            Fate::Drop(_) => None,
        }).collect();
        prop_assert!(due.is_sorted());
    }

    #[test]
    fn no_window_exceeds_the_rate_by_more_than_a_frame(
        arrivals in arrivals(), rate in 1_000_000_u64..1_000_000_000,
    ) {
        let mut params = LinkParams::with_delay(Duration::from_millis(1));
        params.rate_bits_per_s = Some(rate);
        let delivered: Vec<(u64, u32)> = run(&mut link(params), &arrivals).into_iter().filter_map(|(_, length, fate)| match fate {
            Fate::Deliver(due) => Some((due, length)),
            Fate::Drop(_) => None,
        }).collect();
        for first in 0..delivered.len() {
            let mut bits = 0_u128;
            for last in first..delivered.len() {
                let (due, length) = delivered[last];
                if last > first {
                    bits += u128::from(length) * 8;
                }
                let window = u128::from(due - delivered[first].0);
                // Frames after the first were serialised within the window.
                prop_assert!(bits * 1_000_000_000 <= window * u128::from(rate));
            }
        }
    }

    #[test]
    fn queue_never_holds_more_than_its_limit(
        arrivals in arrivals(), packets in 1_u32..20, bytes in 1_514_u64..20_000, by_bytes: bool,
    ) {
        let mut params = LinkParams::with_delay(Duration::ZERO);
        params.rate_bits_per_s = Some(20_000_000);
        params.queue = if by_bytes { QueueLimit::Bytes(bytes) } else { QueueLimit::Packets(packets) };
        let fates = run(&mut link(params), &arrivals);
        for (index, (offered, _, _)) in fates.iter().enumerate() {
            // Without delay a frame is due when it leaves the serialiser.
            let waiting: Vec<u32> = fates[..=index].iter().filter_map(|(_, length, fate)| match fate {
                Fate::Deliver(due) if due > offered => Some(*length),
                _ => None,
            }).collect();
            if by_bytes {
                prop_assert!(waiting.iter().map(|l| u64::from(*l)).sum::<u64>() <= bytes);
            } else {
                prop_assert!(waiting.len() <= packets as usize);
            }
        }
    }

    #[test]
    fn same_seed_gives_the_same_fates(arrivals in arrivals(), loss in 0.0_f64..1.0) {
        let mut params = LinkParams::with_delay(Duration::from_millis(1));
        params.loss = loss;
        params.jitter = Duration::from_millis(1);
        prop_assert_eq!(run(&mut link(params), &arrivals), run(&mut link(params), &arrivals));
    }
}

#[test]
fn loss_fraction_is_met_over_many_frames() {
    let mut params = LinkParams::with_delay(Duration::ZERO);
    params.loss = 0.1;
    let mut shaper = link(params);
    let lost = (0..100_000)
        .filter(|now| shaper.offer(*now, 100) == Fate::Drop(DropReason::Loss))
        .count();
    assert!((9_500..10_500).contains(&lost), "{lost} of 100,000 lost");
}

#[test]
fn full_queue_drops_by_name_and_drains_at_the_rate() {
    let mut params = LinkParams::with_delay(Duration::ZERO);
    params.rate_bits_per_s = Some(8_000_000); // one byte per microsecond
    params.queue = QueueLimit::Packets(2);
    let mut shaper = link(params);
    assert_eq!(shaper.offer(0, 1000), Fate::Deliver(1_000_000));
    assert_eq!(shaper.offer(0, 1000), Fate::Deliver(2_000_000));
    assert_eq!(shaper.offer(0, 1000), Fate::Drop(DropReason::QueueFull));
    assert_eq!(shaper.offer(1_000_000, 1000), Fate::Deliver(3_000_000));
}

#[test]
fn link_that_is_down_drops_everything() {
    let mut params = LinkParams::with_delay(Duration::ZERO);
    params.up = false;
    assert_eq!(link(params).offer(5, 60), Fate::Drop(DropReason::LinkDown));
}

#[test]
fn frame_read_late_takes_its_place_before_later_ones() {
    let mut shaper = link(LinkParams::with_delay(Duration::from_micros(1)));
    assert_eq!(shaper.offer(5_000, 60), Fate::Deliver(6_000));
    assert_eq!(shaper.offer(4_000, 60), Fate::Deliver(5_000));
}
