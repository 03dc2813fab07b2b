config = {"bodhi.queue": 17, "status_directory": "/var/run/fedmsg/status"}
