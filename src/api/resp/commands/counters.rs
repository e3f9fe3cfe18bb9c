//! Counters: exact sums through concurrent increments, seen as strings.

use super::{Command, DENYOOM, FAST, WRITE, decimal, integer, keyed};
use crate::api::resp::plan::{Plan, shape};
use crate::api::resp::refusal::{INFINITE_SUM, Refusal};
use crate::api::resp::session::Call;
use crate::data::decimal::Decimal;
use crate::data::op::Op;

pub const COMMANDS: &[Command] = &[
    keyed("incr", 2, WRITE | DENYOOM | FAST, "string", "Add one", incr),
    keyed("decr", 2, WRITE | DENYOOM | FAST, "string", "Take one away", incr),
    keyed("incrby", 3, WRITE | DENYOOM | FAST, "string", "Add a number", incr),
    keyed("decrby", 3, WRITE | DENYOOM | FAST, "string", "Take a number away", incr),
    keyed("incrbyfloat", 3, WRITE | DENYOOM | FAST, "string", "Add a decimal number", incrbyfloat),
];

fn incr(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let by = call.arguments.get(2).map_or(Ok(1), |by| integer(by))?;
    let by = match call.name.starts_with("decr") {
        true => by.checked_neg().ok_or("ERR decrement would overflow")?,
        false => by,
    };
    let op = Op::Increment { by: Decimal::from_integer(by), integer: true };
    Ok(Plan::one(&call.arguments[1], op, shape::integer))
}

fn incrbyfloat(call: &mut Call<'_>) -> Result<Plan, Refusal> {
    let by = decimal(&call.arguments[2], INFINITE_SUM)?;
    Ok(Plan::one(&call.arguments[1], Op::Increment { by, integer: false }, shape::decimal))
}
