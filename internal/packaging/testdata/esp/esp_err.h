#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
typedef int esp_err_t;
#define ESP_OK 0
void _esp_error_check_failed(esp_err_t rc);
#define ESP_ERROR_CHECK(x) do { esp_err_t rc_ = (x); if (rc_ != ESP_OK) _esp_error_check_failed(rc_); } while (0)
#define CONFIG_HOLDFAST_URI "mqtts://hub.example:8883"
