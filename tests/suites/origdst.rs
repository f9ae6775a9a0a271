//! origdst
