"""Everything outside kvbench that a scenario needs: servers, hosts, neighbours, and a lab of network namespaces."""
