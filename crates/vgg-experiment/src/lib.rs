//! The paper's tables as graphs of cached runs. Nothing is here yet: the plan and the tables come next.
