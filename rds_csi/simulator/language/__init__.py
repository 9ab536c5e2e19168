"""The script language of RouterOS: parsed as a whole, then run."""
