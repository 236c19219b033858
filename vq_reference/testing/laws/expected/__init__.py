"""What the oracle expects for the choices that an implementation made, with bounds."""
