//! Searches a smaller plan that breaks something too.

use crate::plan::Plan;

/// Leaves out steps of a plan, in ever smaller groups, as long as `fails` still holds. The method is delta debugging (Zeller
/// and Hildebrandt, 2002), without its complements.
pub fn shrink(plan: Plan, mut fails: impl FnMut(&Plan) -> bool) -> Plan {
    let mut best = plan;
    let mut size = best.steps.len().div_ceil(2);
    while size > 0 {
        let mut from = 0;
        let mut smaller = false;
        while from < best.steps.len() {
            let mut tried = best.clone();
            tried.steps.drain(from..(from + size).min(best.steps.len()));
            if fails(&tried) {
                best = tried;
                smaller = true;
            } else {
                from += size;
            }
        }
        if size == 1 && !smaller {
            break;
        }
        size = if size == 1 { 1 } else { size.div_ceil(2) };
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_to_fail_is_left() {
        let plan = (0..).map(Plan::draw).find(|plan| plan.steps.len() > 20).expect("a long plan");
        let needed = [plan.steps[3].clone(), plan.steps[17].clone()];
        let small = shrink(plan, |plan| needed.iter().all(|step| plan.steps.contains(step)));
        assert_eq!(small.steps, needed);
    }
}
