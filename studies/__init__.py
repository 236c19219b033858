"""What makes the pages and figures of docs/ anew: for a checkout, and not in the wheel."""
