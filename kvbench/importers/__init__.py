"""Results that other tools measured, as result folders of kvbench: read one tool's export, then lay the folder out."""
