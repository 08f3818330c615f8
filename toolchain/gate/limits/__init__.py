"""The limits of a policy, one file each: what is asked, what shows it, and how it is judged."""
