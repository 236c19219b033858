"""An implementation under watch: what a law did to it, kept for reports and scripts."""
